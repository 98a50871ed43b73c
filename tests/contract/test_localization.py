"""`POST /score` reports which seconds and bands of a window stand out, or why it cannot."""

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fastapi.testclient import TestClient

from launch import in_process
from service.encoder.bundle import MANIFEST_FILE
from service.settings import Settings
from service.store.database.sqlite import DATABASE_FILE
from service.store.snapshot.check import check_database

Fan = Callable[..., bytes]
FAN = {"machine_id": "fan-1"}


def beeping(clip: bytes, hertz: float, begin: float, end: float, encode: Callable[..., bytes]) -> bytes:
    """A clip with a tone in it."""
    samples, rate = soundfile.read(io.BytesIO(clip))
    time = np.arange(len(samples)) / rate
    tone = 0.05 * np.sin(2 * np.pi * hertz * time) * ((time >= begin) & (time < end))
    return encode(samples + tone, rate)


def restarted(api: TestClient) -> None:
    """Evict the cached bank, as a restart would."""
    service = api.app.state.service
    service.banks.evict(service.store.machine("fan-1").machine_key)


def test_a_tone_is_found_at_its_second_and_frequency(fan_api: TestClient, fan: Fan, encode: Fan) -> None:
    fan_api.post("/enroll", params=FAN, content=fan(5, seconds=12.0))  # windows are no longer than an enrolled clip
    clip = beeping(fan(90, seconds=12.0), 4_000.0, 7.0, 8.0, encode)
    answer = fan_api.post("/score", params=FAN, content=clip).json()
    assert answer["localization_note"] is None
    first, second = (window["localization"] for window in answer["clips"][0]["windows"])  # 0 to 10 s, 2 to 12 s
    for start, window in ((0.0, first), (2.0, second)):
        region = window["regions"][0]
        assert (region["start_s"], region["end_s"], region["change"]) == (7.0, 8.0, "louder")
        assert 3_500 < region["low_hz"] < 4_000 < region["high_hz"] < 4_500
        assert region["deviation"] > 2 * window["median_deviation"] > 0
        assert region["p_value"] == pytest.approx(1 / 7)
        assert window["domain"] == "source"
        assert window["step_s"] == 0.5
        assert len(window["profile"]) == 20
        assert start + 0.5 * int(np.argmax(window["profile"])) in (7.0, 7.5)


def test_an_enrolled_clip_has_nothing_that_stands_out_as_much(fan_api: TestClient, fan: Fan) -> None:
    answer = fan_api.post("/score", params=FAN, content=fan(0)).json()
    found = answer["clips"][0]["windows"][0]["localization"]
    assert max(found["profile"]) < 2 * found["median_deviation"]


def test_it_is_on_for_one_clip_and_off_for_many_unless_requested(fan_api: TestClient, fan: Fan) -> None:
    def localized(clips: int, **params: str) -> set[bool]:
        files = [("clips", (f"{number}.wav", fan(number))) for number in range(clips)]
        answer = fan_api.post("/score", params={**FAN, **params}, files=files).json()
        found = {clip["windows"][0]["localization"] is not None for clip in answer["clips"]}
        assert (answer["localization_note"] is None) == (found == {True})
        return found

    assert localized(1) == localized(2, localize="true") == {True}
    assert localized(2) == localized(1, localize="false") == {False}
    refused = fan_api.post("/score", params={**FAN, "localize": "perhaps"}, content=fan(0))
    assert refused.status_code == 422 or refused.json()["type"].endswith("malformed-request")


def test_clips_of_an_earlier_version_are_reported(fan_api: TestClient, fan: Fan) -> None:
    engine = fan_api.app.state.service.store._database.engine

    def after(statement: str) -> tuple[bool, str]:
        with engine.begin() as connection:
            connection.exec_driver_sql(statement)
        restarted(fan_api)
        answer = fan_api.post("/score", params=FAN, content=fan(9)).json()
        return answer["clips"][0]["windows"][0]["localization"] is not None, answer["localization_note"]

    localized, note = after("DELETE FROM spectrogram WHERE clip_id <= 2")
    assert localized
    assert note.startswith("2 of 5 clips were enrolled by an earlier version")
    localized, note = after("DELETE FROM spectrogram WHERE clip_id <= 4")
    assert not localized
    assert note.startswith("Spectrograms are stored for 1 of 5 enrolled clips")
    localized, note = after("DELETE FROM spectrogram")
    assert not localized
    assert "stored for 0 of 5" in note


def test_a_spectrogram_that_was_changed_is_noticed(fan_api: TestClient, fan: Fan, settings: Settings) -> None:
    with fan_api.app.state.service.store._database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE spectrogram SET cells = zeroblob(length(cells)) WHERE clip_id = 3")
    restarted(fan_api)
    answer = fan_api.post("/score", params=FAN, content=fan(9))
    assert answer.status_code == 503
    assert answer.json()["type"].endswith("machine-damaged")
    (damage,) = check_database(settings.data_dir / DATABASE_FILE).damage
    assert str(damage) == "machine fan-1: the spectrogram of window 0 of clip 3 does not fit its checksum"


@pytest.fixture
def mute_api(settings: Settings, bundle: Path, tmp_path: Path) -> Iterator[TestClient]:
    """A service with a bundle of an earlier version, which lacks the frequencies of its bands."""
    older = tmp_path / "older"
    shutil.copytree(bundle, older)
    manifest = json.loads((older / MANIFEST_FILE).read_text())
    for output in manifest["outputs"]:
        output.pop("centers_hz")
    (older / MANIFEST_FILE).write_text(json.dumps(manifest))
    with in_process(settings, bundle=older) as client:
        yield client


def test_a_bundle_without_frequencies_of_its_bands_is_named(mute_api: TestClient, fan: Fan) -> None:
    mute_api.put("/machines/fan-1")
    for number in range(3):
        mute_api.post("/enroll", params=FAN, content=fan(number))
    answer = mute_api.post("/score", params=FAN, content=fan(9)).json()
    assert answer["clips"][0]["windows"][0]["localization"] is None
    assert answer["localization_note"].startswith("The bundle offkey-small/4 outputs no log-mel spectrogram")
