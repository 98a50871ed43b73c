"""Calibrations on disk: the same answers, found again after a restart; whatever happens to the file."""

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
from service.bank import Bank, BankRows, Calibration, CalibrationCache, Unread, calibration_cache
from service.bank.serialization import dump, load, packed
from service.domain.acoustics import Acoustics
from service.domain.backends import BACKENDS
from service.settings import Settings
from service.usecases.service import Service

DIM = 16


@pytest.fixture(autouse=True)
def keeps_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration_cache, "_WORTH_SECONDS", 0.0)


@pytest.fixture
def rows() -> BankRows:
    rng = np.random.default_rng(0)
    count = 60
    vectors = rng.standard_normal((count, DIM)).astype(np.float32) + 2.0
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = np.arange(count, dtype=np.int64)
    levels = rng.normal(-40.0, 2.0, (count, 8))
    acoustics = {
        int(clip): Acoustics(-20.0, -40.0, 7_000.0, 0.0, tuple(levels[clip].tolist()), 16_000, 1) for clip in ids
    }
    spectrograms = {int(row): rng.standard_normal((4, 5)).astype(np.float32) for row in ids}
    domains = (Domain.SOURCE,) * 50 + (Domain.TARGET,) * 10
    names = {int(clip): f"{clip}.wav" for clip in ids}
    return BankRows(1, "a-space", vectors, ids, ids, np.zeros(count), domains, names, acoustics, spectrograms)


def kept_or_made(calibrations: CalibrationCache, rows: BankRows, backend: str, coreset: int) -> Calibration:
    """Of machine 7. What is only learned from is looked at only where that is needed."""
    unread = replace(rows, acoustics=Unread(rows.acoustics.keys()), spectrograms=Unread(rows.spectrograms.keys()))
    return calibrations.find(7, unread, backend, coreset) or calibrations.learn(7, rows, backend, coreset)


def answers(rows: BankRows, calibration: Calibration) -> tuple[object, ...]:
    """All that a bank tells of some windows."""
    bank = Bank.of(rows, calibration, exact_limit=1_000)
    rng = np.random.default_rng(1)
    windows = rng.standard_normal((5, DIM)).astype(np.float32)
    windows /= np.linalg.norm(windows, axis=1, keepdims=True)
    scores, named = bank.score(windows, 3)
    located = bank.reference.domains and bank.reference.locate(rng.standard_normal((4, 5)).astype(np.float32))
    unlike = [one.differences(rows.acoustics[3], 1.0) for one in bank.envelopes.values()]
    selves = {domain.value: own.scores.tolist() for domain, own in bank.detector.self_scores.items()}
    return scores.tolist(), named, repr(located), unlike, selves, bank.values, bank.clips_in_reference, bank.compared


@pytest.fixture
def no_fit(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on, nothing may be learned."""
    return lambda: monkeypatch.setattr(Calibration, "fit", lambda *_: pytest.fail("learned again"))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("coreset", [0, 20])
def test_what_is_found_answers_as_what_was_made(
    rows: BankRows, tmp_path: Path, no_fit: Callable[[], None], backend: str, coreset: int
) -> None:
    made = kept_or_made(CalibrationCache(tmp_path), rows, backend, coreset)
    no_fit()
    found = kept_or_made(CalibrationCache(tmp_path), rows, backend, coreset)
    assert found is not made
    assert answers(rows, found) == answers(rows, made)


def test_of_other_rows_or_settings_nothing_is_found(rows: BankRows, tmp_path: Path) -> None:
    calibrations = CalibrationCache(tmp_path)
    kept_or_made(calibrations, rows, "nearest", 0)
    before = (tmp_path / "7.calibration").read_bytes()
    moved = rows.vectors.copy()
    moved[3] = moved[4]
    others = [
        (replace(rows, vectors=moved), "nearest", 0),
        (replace(rows, domains=(Domain.SOURCE,) * 60), "nearest", 0),
        (replace(rows, recordings=rows.recordings // 2), "nearest", 0),
        (replace(rows, acoustics={}), "nearest", 0),
        (replace(rows, spectrograms={}), "nearest", 0),
        (rows, "mahalanobis", 0),
        (rows, "nearest", 30),
    ]
    seen = {before}
    for other, backend, coreset in others:
        expected = answers(rows, Calibration.fit(other, backend, coreset))
        assert answers(rows, kept_or_made(calibrations, other, backend, coreset)) == expected
        seen.add((tmp_path / "7.calibration").read_bytes())
    assert len(seen) == len(others) + 1


def test_other_code_learns_again(rows: BankRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept_or_made(CalibrationCache(tmp_path), rows, "nearest", 0)
    before = (tmp_path / "7.calibration").read_bytes()
    monkeypatch.setattr(calibration_cache, "_code", lambda: b"another")
    kept_or_made(CalibrationCache(tmp_path), rows, "nearest", 0)
    assert (tmp_path / "7.calibration").read_bytes() != before


def test_a_damaged_file_costs_time_and_never_an_answer(rows: BankRows, tmp_path: Path) -> None:
    file = tmp_path / "7.calibration"
    expected = answers(rows, kept_or_made(CalibrationCache(tmp_path), rows, "mahalanobis", 0))
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    for turn in range(300):
        data = bytearray(whole)
        match turn % 3:
            case 0:
                data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
            case 1:
                del data[rng.integers(len(data)) :]
            case _:
                at = int(rng.integers(len(data)))
                data[at : at + 64] = rng.bytes(64)
        file.write_bytes(data)
        assert answers(rows, kept_or_made(CalibrationCache(tmp_path), rows, "mahalanobis", 0)) == expected
        assert file.read_bytes() == whole  # written again


def test_a_folder_that_cannot_be_written_does_not_matter(
    rows: BankRows, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "kept").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        found = kept_or_made(CalibrationCache(tmp_path / "kept"), rows, "nearest", 0)
    assert answers(rows, found) == answers(rows, Calibration.fit(rows, "nearest", 0))
    assert "cannot be kept" in caplog.text


def test_what_is_learned_at_once_is_not_kept(rows: BankRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration_cache, "_WORTH_SECONDS", math.inf)
    kept_or_made(CalibrationCache(tmp_path), rows, "nearest", 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("os:system", "not of this package"),
        ("service.bank.serialization:load", "holds no data"),
        ("service.store.store:Store", "holds no data"),
    ],
)
def test_a_file_names_nothing_but_data(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(packed({"is": "object", "of": name, "parts": {}}, []))


def test_what_cannot_be_kept_is_said() -> None:
    with pytest.raises(TypeError, match="object cannot be kept"):
        dump({"a": object()})
    with pytest.raises(TypeError, match="array of object cannot be kept"):
        dump(np.array([object()]))
    forged = dump(np.zeros(1)).replace(b"<f8", b"|O8")
    with pytest.raises(ValueError, match="none of numbers"):
        load(forged)


def test_arrays_come_back_as_they_lay() -> None:
    """In the order of their values too: a product of matrices is rounded by it."""
    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    written = (whole, whole.T, whole[:, ::2], np.zeros((0, 3)), np.array(2.5), np.array([True, False]), np.arange(3))
    for one, back in zip(written, load(dump(written)), strict=True):
        np.testing.assert_array_equal(back, one, strict=True)
        assert back.flags.f_contiguous == (one.flags.f_contiguous or one.size < 2)
        assert not back.flags.writeable


@pytest.mark.parametrize("dim", [15, 16])
def test_vectors_that_differ_in_a_bit_have_other_sums(dim: int) -> None:
    vectors = np.random.default_rng(0).standard_normal((40, dim)).astype(np.float32)
    sums = {calibration_cache._sums(vectors).tobytes()}
    for at in range(vectors.nbytes):
        for bit in range(8):
            moved = vectors.copy()
            moved.view(np.uint8).reshape(-1)[at] ^= 1 << bit
            sums.add(calibration_cache._sums(moved).tobytes())
    sums.add(calibration_cache._sums(vectors[::-1]).tobytes())
    assert len(sums) == 8 * vectors.nbytes + 2


def test_nothing_can_be_learned_from_what_was_not_read(rows: BankRows) -> None:
    for unread in (replace(rows, acoustics=Unread({3, 4})), replace(rows, spectrograms=Unread({3, 4}))):
        with pytest.raises(RuntimeError, match="was not read"):
            Calibration.fit(unread, "nearest", 0)


def test_a_restart_learns_nothing_again_and_deletion_leaves_nothing(
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
    """Every statement that any database is asked from now on."""
    said: list[str] = []

    def embed(connection: object, cursor: object, statement: str, *_: object) -> None:
        said.append(statement)

    event.listen(Engine, "before_cursor_execute", embed)
    yield said
    event.remove(Engine, "before_cursor_execute", embed)


def spoil(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("happens", "learned_from"),
    [(lambda _: None, False), (spoil, True), (Path.unlink, True)],
    ids=["kept", "damaged", "gone"],
)
def test_what_is_only_learned_from_is_read_only_to_learn(
    settings: Settings,
    fan: Callable[..., bytes],
    encode: Callable[..., bytes],
    statements: list[str],
    happens: Callable[[Path], object],
    learned_from: bool,
) -> None:
    """And the answer, warnings and what stands out among it, is the same to the last digit."""
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
    happens(file)
    with TestClient(create_app(Service.open(settings))) as api:
        statements.clear()
        assert score(api) == before
    read = [said for said in statements if said.startswith("SELECT")]
    assert any("embedding.vector" in said for said in read)
    for column in ("spectrogram.cells", "condition.bands_dbfs"):
        assert any(column in said for said in read) == learned_from
    assert file.read_bytes() == written  # again, where it was spoiled or gone
