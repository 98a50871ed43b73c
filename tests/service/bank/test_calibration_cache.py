"""The calibration cache: equal results after a restart, whatever happens to the files."""

import io
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fastapi.testclient import TestClient
from sqlalchemy import Engine, event

from offkey.vocabulary import Domain
from service.app import create_app
from service.bank import Bank, BankRows, Calibration, CalibrationCache, CalibrationRows, calibration_cache
from service.domain.acoustics import Acoustics
from service.domain.backends import BACKENDS
from service.settings import Settings
from service.usecases.service import Service

DIM = 16


@pytest.fixture(autouse=True)
def caches_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration_cache, "_MIN_FIT_SECONDS", 0.0)


@pytest.fixture
def calibration_rows() -> CalibrationRows:
    rng = np.random.default_rng(0)
    levels = rng.normal(-40.0, 2.0, (60, 8))
    return CalibrationRows(
        {clip: Acoustics(-20.0, -40.0, 7_000.0, 0.0, tuple(levels[clip].tolist()), 16_000, 1) for clip in range(60)},
        {row: rng.standard_normal((4, 5)).astype(np.float32) for row in range(60)},
    )


@pytest.fixture
def rows(calibration_rows: CalibrationRows) -> BankRows:
    vectors = np.random.default_rng(1).standard_normal((60, DIM)).astype(np.float32) + 2.0
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = np.arange(60, dtype=np.int64)
    return BankRows(
        generation=1,
        embedding_space_id="a-space",
        vectors=vectors,
        clips=ids,
        recordings=ids,
        starts=np.zeros(60),
        ends=np.ones(60),
        domains=(Domain.SOURCE,) * 50 + (Domain.TARGET,) * 10,
        names={clip: f"{clip}.wav" for clip in range(60)},
        measured=frozenset(calibration_rows.acoustics),
        has_spectrogram=frozenset(calibration_rows.spectrograms),
    )


def get_or_fit(
    cache: CalibrationCache, rows: BankRows, calibration_rows: CalibrationRows, backend: str, coreset: int = 0
) -> Calibration:
    """Return the calibration of machine 7."""
    return cache.get(7, rows, backend, coreset) or cache.fit(7, rows, calibration_rows, backend, coreset)


def results(rows: BankRows, calibration_rows: CalibrationRows, calibration: Calibration) -> tuple[object, ...]:
    """Compute everything that a bank returns for some windows."""
    bank = Bank.of(rows, calibration, exact_limit=1_000)
    rng = np.random.default_rng(1)
    windows = rng.standard_normal((5, DIM)).astype(np.float32)
    windows /= np.linalg.norm(windows, axis=1, keepdims=True)
    scores, named = bank.score(windows, 3)
    located = bank.reference.domains and bank.reference.locate(rng.standard_normal((4, 5)).astype(np.float32))
    differences = [one.differences(calibration_rows.acoustics[3], 1.0) for one in bank.envelopes.values()]
    selves = {domain.value: own.scores.tolist() for domain, own in bank.detector.self_scores.items()}
    return (
        scores.windows.tolist(),
        (scores.domains, scores.view, scores.window, scores.slice),
        named,
        repr(located),
        differences,
        selves,
        bank.nbytes,
        bank.clips_in_reference,
        bank.compared,
    )


@pytest.fixture
def no_fit(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """`no_fit()` makes every fit from then on fail."""
    return lambda: monkeypatch.setattr(Calibration, "fit", lambda *_: pytest.fail("fitted again"))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("coreset", [0, 20])
def test_a_cached_calibration_gives_the_results_of_the_fitted_one(
    rows: BankRows,
    calibration_rows: CalibrationRows,
    tmp_path: Path,
    no_fit: Callable[[], None],
    backend: str,
    coreset: int,
) -> None:
    fitted = get_or_fit(CalibrationCache(tmp_path), rows, calibration_rows, backend, coreset)
    no_fit()
    cached = get_or_fit(CalibrationCache(tmp_path), rows, calibration_rows, backend, coreset)
    assert cached is not fitted
    assert results(rows, calibration_rows, cached) == results(rows, calibration_rows, fitted)


def test_other_rows_or_settings_are_fitted_again(
    rows: BankRows, calibration_rows: CalibrationRows, tmp_path: Path
) -> None:
    cache = CalibrationCache(tmp_path)
    moved = rows.vectors.copy()
    moved.view(np.uint32)[3, 5] ^= 1
    no_acoustics, no_spectrograms = (replace(calibration_rows, **{name: {}}) for name in ("acoustics", "spectrograms"))
    others = [
        (replace(rows, vectors=moved), calibration_rows, "nearest", 0),
        (replace(rows, domains=(Domain.SOURCE,) * 60), calibration_rows, "nearest", 0),
        (replace(rows, recordings=rows.recordings // 2), calibration_rows, "nearest", 0),
        (replace(rows, measured=frozenset()), no_acoustics, "nearest", 0),
        (replace(rows, measured=frozenset(range(30))), calibration_rows, "nearest", 0),
        (replace(rows, has_spectrogram=frozenset()), no_spectrograms, "nearest", 0),
        (rows, calibration_rows, "mahalanobis", 0),
        (rows, calibration_rows, "nearest", 30),
    ]
    for other, other_calibration_rows, backend, coreset in others:
        get_or_fit(cache, rows, calibration_rows, "nearest")
        assert cache.get(7, other, backend, coreset) is None
        expected = Calibration.fit(other, other_calibration_rows, backend, coreset)
        found = get_or_fit(cache, other, other_calibration_rows, backend, coreset)
        assert results(rows, calibration_rows, found) == results(rows, calibration_rows, expected)


def test_rows_with_other_ids_have_the_same_calibration(
    rows: BankRows, calibration_rows: CalibrationRows, tmp_path: Path, no_fit: Callable[[], None]
) -> None:
    get_or_fit(CalibrationCache(tmp_path), rows, calibration_rows, "nearest")
    no_fit()
    moved = replace(rows, clips=rows.clips + 100, measured=frozenset(clip + 100 for clip in rows.measured))
    assert CalibrationCache(tmp_path).get(7, moved, "nearest", 0) is not None


@pytest.mark.parametrize("version", ["CALIBRATION_VERSION", "__version__"])
def test_another_version_fits_again(
    rows: BankRows, calibration_rows: CalibrationRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    cache = CalibrationCache(tmp_path)
    get_or_fit(cache, rows, calibration_rows, "nearest")
    monkeypatch.setattr(calibration_cache, version, "another")
    assert cache.get(7, rows, "nearest", 0) is None
    get_or_fit(cache, rows, calibration_rows, "nearest")
    assert cache.get(7, rows, "nearest", 0) is not None


def test_a_damaged_file_costs_time_and_never_changes_a_result(
    rows: BankRows, calibration_rows: CalibrationRows, tmp_path: Path
) -> None:
    file, cache = tmp_path / "7.calibration", CalibrationCache(tmp_path)
    expected = results(rows, calibration_rows, get_or_fit(cache, rows, calibration_rows, "mahalanobis"))
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    for number in range(300):
        data = bytearray(whole)
        match number % 3:
            case 0:
                data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
            case 1:
                del data[rng.integers(len(data)) :]
            case _:
                at = int(rng.integers(len(data)))
                data[at : at + 64] = rng.bytes(64)
        file.write_bytes(data)
        found = get_or_fit(cache, rows, calibration_rows, "mahalanobis")
        assert results(rows, calibration_rows, found) == expected
        assert file.read_bytes() == whole  # written again


def test_a_folder_that_cannot_be_written_changes_nothing(
    rows: BankRows, calibration_rows: CalibrationRows, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file in place of the folder")
    with caplog.at_level(logging.WARNING):
        found = get_or_fit(CalibrationCache(tmp_path / "cache"), rows, calibration_rows, "nearest")
    expected = Calibration.fit(rows, calibration_rows, "nearest")
    assert results(rows, calibration_rows, found) == results(rows, calibration_rows, expected)
    assert "cannot be cached" in caplog.text


def test_a_fast_fit_is_not_written(
    rows: BankRows, calibration_rows: CalibrationRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration_cache, "_MIN_FIT_SECONDS", math.inf)
    get_or_fit(CalibrationCache(tmp_path), rows, calibration_rows, "nearest")
    assert not list(tmp_path.iterdir())


def test_a_restart_fits_nothing_again_and_deletion_leaves_no_file(
    settings: Settings, fan: Callable[..., bytes], no_fit: Callable[[], None]
) -> None:
    def score(api: TestClient) -> dict[str, object]:
        answer = api.post("/score", params={"machine_id": "fan-1"}, content=fan(30)).json()
        return answer | {"timing_ms": {}}

    folder = settings.data_dir / "runtime" / "calibrations"
    with TestClient(create_app(Service.open(settings))) as api:
        api.put("/machines/fan-1")
        for number in range(6):
            assert api.post("/enroll", params={"machine_id": "fan-1"}, content=fan(number)).status_code == 201
        before = score(api)
    no_fit()
    with TestClient(create_app(Service.open(settings))) as api:
        assert score(api) == before
        assert len(list(folder.iterdir())) == 1
        api.delete("/machines/fan-1")
        assert not list(folder.iterdir())


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """SQL statements of all databases from now on."""
    found: list[str] = []

    def add(connection: object, cursor: object, statement: str, *_: object) -> None:
        found.append(statement)

    event.listen(Engine, "before_cursor_execute", add)
    yield found
    event.remove(Engine, "before_cursor_execute", add)


def flip_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "is_fitted"),
    [(lambda _: None, False), (flip_bit, True), (Path.unlink, True)],
    ids=["cached", "damaged", "absent"],
)
def test_acoustics_and_spectrograms_are_read_only_for_a_fit(
    settings: Settings,
    fan: Callable[..., bytes],
    encode: Callable[..., bytes],
    statements: list[str],
    damage: Callable[[Path], object],
    is_fitted: bool,
) -> None:
    """The answer, with its warnings and localization, is equal to the last digit."""
    folder = settings.data_dir / "runtime" / "calibrations"
    samples, rate = soundfile.read(io.BytesIO(fan(30)))
    quiet = encode(0.01 * samples, rate)

    def score(api: TestClient) -> dict[str, object]:
        answer = api.post("/score", params={"machine_id": "fan-1", "localize": True}, content=quiet)
        assert answer.status_code == 200, answer.text
        return answer.json() | {"timing_ms": {}}

    with TestClient(create_app(Service.open(settings))) as api:
        api.put("/machines/fan-1")
        for number in range(6):
            assert api.post("/enroll", params={"machine_id": "fan-1"}, content=fan(number)).status_code == 201
        before = score(api)
        assert before["clips"][0]["windows"][0]["localization"]
        assert before["clips"][0]["warnings"]
    (file,) = folder.iterdir()
    written = file.read_bytes()
    damage(file)
    with TestClient(create_app(Service.open(settings))) as api:
        statements.clear()
        assert score(api) == before
    read = [one for one in statements if one.startswith("SELECT")]
    assert any("embedding.vector" in one for one in read)
    for column in ("spectrogram.cells", "acoustics.bands_dbfs", "slices.cells", "piece.cells"):
        assert any(column in one for one in read) == is_fitted
    assert file.read_bytes() == written  # written again if it was damaged or absent
