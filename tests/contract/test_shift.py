"""A clip that differs from the enrolled clips gets a warning, and drift of the scores is reported."""

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from launch import in_process
from service.settings import Settings
from service.store.database.sqlite import DATABASE_FILE
from service.synthetic import MACHINES
from service.telemetry.metrics import MAX_DRIFT_MACHINES

Fan = Callable[..., bytes]
FAN = {"machine_id": "fan-1"}
SECONDS = 3.0


def sound(number: int, domain: str = "source", severity: float = 0.0) -> NDArray[np.floating]:
    machine = MACHINES["fan-synthetic"]
    return machine.clip(split="train", domain=domain, number=number, severity=severity, seconds=SECONDS)


def score(api: TestClient, *clips: bytes) -> list[dict[str, Any]]:
    files = [("clips", (f"{number}.wav", clip)) for number, clip in enumerate(clips)]
    answer = api.post("/score", params=FAN, files=files)
    assert answer.status_code == 200
    found: list[dict[str, Any]] = answer.json()["clips"]
    return found


def kinds(clip: dict[str, Any]) -> set[str]:
    return {warning["kind"] for warning in clip["warnings"]}


# -- acoustics


def test_a_healthy_clip_is_like_the_enrolled_ones(full_api: TestClient, fan: Fan) -> None:
    found = score(full_api, *(fan(number) for number in range(40, 52)))
    assert sum(bool(clip["warnings"]) for clip in found) == 0
    acoustics = found[0]["acoustics"]
    assert isinstance(acoustics, dict)
    assert acoustics["level_dbfs"] == pytest.approx(-26, abs=1.5)
    assert acoustics["noise_floor_dbfs"] < acoustics["level_dbfs"]
    assert (acoustics["bandwidth_hz"], acoustics["clipped"]) == (8_000, 0)
    assert (acoustics["sample_rate"], acoustics["channels"]) == (16_000, 1)


@pytest.mark.parametrize(
    ("alter", "expected"),
    [
        (lambda clip: (clip / 10, 16_000), {"level"}),
        (lambda clip: (np.clip(clip * 100, -1, 1), 16_000), {"level", "spectrum", "clipping"}),
        (lambda clip: (clip[::2], 8_000), {"sample-rate", "bandwidth", "spectrum"}),
        (lambda clip: (np.stack([clip, clip], axis=1), 16_000), {"channels"}),
        (lambda clip: (clip + 0.05 * np.random.default_rng(0).standard_normal(len(clip)), 16_000), {"spectrum"}),
    ],
    ids=["quiet", "clipped", "8 kHz", "stereo", "noise"],
)
def test_what_was_recorded_otherwise_gets_a_warning(
    full_api: TestClient, encode: Fan, alter: Callable[..., tuple[object, int]], expected: set[str]
) -> None:
    clip = encode(*alter(sound(40)))
    (found,) = score(full_api, clip)
    assert expected <= kinds(found) <= expected | {"bandwidth"}
    assert "20 enrolled clips" in found["warnings"][0]["detail"]
    text = full_api.get("/metrics").text
    for kind in expected:
        assert f'offkey_acoustics_warnings_total{{measure="{kind}"}} 1.0' in text


def test_either_domain_will_do(full_api: TestClient, encode: Fan) -> None:
    quiet = [("clips", (f"{number}.wav", encode(sound(number) / 10))) for number in range(20, 25)]
    assert kinds(score(full_api, encode(sound(40) / 10))[0]) == {"level"}
    answer = full_api.post("/enroll", params={**FAN, "domain": "target"}, files=quiet).json()
    assert not any(clip["warnings"] for clip in answer["clips"])  # the first ones of their domain
    assert kinds(score(full_api, encode(sound(40) / 10))[0]) == set()
    assert kinds(score(full_api, encode(sound(40)))[0]) == set()


def test_an_odd_clip_is_noted_at_enrollment_and_enrolled(api: TestClient, encode: Fan) -> None:
    api.put("/machines/fan-1")
    gains = [0.1 if number == 7 else 1.0 for number in range(20)]
    files = [("clips", (f"{number}.wav", encode(sound(number) * gain))) for number, gain in enumerate(gains)]
    clips = api.post("/enroll", params=FAN, files=files).json()["clips"]
    assert {clip["status"] for clip in clips} == {"enrolled"}
    assert [clip["name"] for clip in clips if clip["warnings"]] == ["7.wav"]
    assert kinds(clips[7]) == {"level"}
    later = api.post("/enroll", params=FAN, content=encode(sound(30) / 100)).json()["clips"][0]
    assert kinds(later) == {"level"}
    again = api.post("/enroll", params=FAN, content=encode(sound(30) / 100)).json()["clips"][0]
    assert (again["status"], again["warnings"]) == ("duplicate", [])


def test_clips_that_were_enrolled_before_are_nothing_to_compare_with(settings: Settings, fan: Fan, encode: Fan) -> None:
    with in_process(settings) as api:
        api.put("/machines/fan-1")
        files = [("clips", (f"{number}.wav", fan(number))) for number in range(20)]
        assert api.post("/enroll", params=FAN, files=files).status_code == 201
    with closing(sqlite3.connect(settings.data_dir / DATABASE_FILE)) as database, database:
        assert database.execute("DELETE FROM acoustics").rowcount == 20
    with in_process(settings) as api:
        (found,) = score(api, encode(sound(40) / 10))
        assert (found["warnings"], found["acoustics"]["sample_rate"]) == ([], 16_000)


def test_the_list_of_clips_has_their_acoustics(settings: Settings, fan_api: TestClient, fan: Fan) -> None:
    (scored,) = score(fan_api, fan(0))
    listed = fan_api.get("/machines/fan-1/clips").json()["clips"]
    assert listed[0]["acoustics"] == scored["acoustics"]
    with closing(sqlite3.connect(settings.data_dir / DATABASE_FILE)) as database, database:
        database.execute("DELETE FROM acoustics WHERE clip_id = ?", (listed[0]["clip_id"],))
    again = fan_api.get("/machines/fan-1/clips").json()["clips"]
    assert again == [{**listed[0], "acoustics": None}, *listed[1:]]


def test_damaged_acoustics_are_reported(settings: Settings, fan_api: TestClient, fan: Fan) -> None:
    with closing(sqlite3.connect(settings.data_dir / DATABASE_FILE)) as database, database:
        database.execute("UPDATE acoustics SET bands_dbfs = x'0000c07f'")
    answer = fan_api.post("/score", params=FAN, content=fan(9))
    assert answer.status_code == 503
    assert answer.json()["type"].endswith("machine-damaged")


# -- noise


def hum(seed: int) -> NDArray[np.floating]:
    """A hall without the machine: noise that falls by 6 dB an octave."""
    steps = np.random.default_rng(seed).standard_normal(int(SECONDS * 16_000))
    filtered = np.convolve(steps, np.exp(-np.arange(200) / 20), "same")
    return 0.02 * filtered / filtered.std()


def test_a_clip_of_the_background_alone_gets_a_warning(full_api: TestClient, fan: Fan, encode: Fan) -> None:
    assert "machine-not-audible" not in kinds(score(full_api, encode(hum(9)))[0])
    files = [("clips", (f"hall_{seed}.wav", encode(hum(seed)))) for seed in range(3)]
    answer = full_api.post("/noise", params=FAN, files=files).json()
    assert (answer["added"], [one["name"] for one in answer["noise"]]) == (3, [name for _, (name, _) in files])
    hall, healthy = score(full_api, encode(hum(9)), fan(40))
    assert "machine-not-audible" in kinds(hall)
    assert kinds(healthy) == set()
    assert 'offkey_acoustics_warnings_total{measure="machine-not-audible"} 1.0' in full_api.get("/metrics").text
    assert full_api.get("/machines/fan-1").json()["clips"] == {"source": 20, "target": 0}  # the bank is what it was
    assert full_api.get("/machines/fan-1").json()["generation"] == 2


def test_noise_is_listed_recognized_and_deleted(settings: Settings, encode: Fan, fan: Fan) -> None:
    with in_process(settings) as api:
        assert api.post("/noise", params=FAN, content=encode(hum(0))).status_code == 404
        assert api.get("/machines/fan-1/noise").status_code == 404
        api.put("/machines/fan-1")
        assert api.post("/noise", params={**FAN, "name": "hall"}, content=encode(hum(0))).json()["added"] == 1
        assert api.post("/noise", params=FAN, content=encode(hum(0))).json()["added"] == 0
        assert api.post("/noise", params=FAN, content=b"not audio").status_code == 422
        enroll(api, fan, range(2))  # it may come before any clip
        (listed,) = api.get("/machines/fan-1/noise").json()["noise"]
        assert (listed["name"], listed["seconds"], listed["windows"]) == ("hall", SECONDS, 1)
    with in_process(settings) as api:
        assert "machine-not-audible" in kinds(score(api, encode(hum(9)))[0])
        where = f"/machines/fan-1/noise/{listed['noise_id']}"
        assert (api.delete(where).status_code, api.delete(where).status_code) == (204, 404)
        assert api.get("/machines/fan-1/noise").json() == {"noise": []}
        assert "machine-not-audible" not in kinds(score(api, encode(hum(9)))[0])
        api.post("/noise", params=FAN, content=encode(hum(0)))
        api.delete("/machines/fan-1")
        api.put("/machines/fan-1")
        assert api.get("/machines/fan-1/noise").json() == {"noise": []}


def test_noise_is_bounded(api: TestClient, encode: Fan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.store.noise.MAX_NOISE_WINDOWS", 2)
    api.put("/machines/fan-1")
    files = [("clips", (f"{seed}.wav", encode(hum(seed)))) for seed in range(3)]
    answer = api.post("/noise", params=FAN, files=files)
    assert (answer.status_code, answer.json()["max_noise_windows"]) == (409, 2)
    assert api.get("/machines/fan-1/noise").json() == {"noise": []}
    assert api.get("/machines/fan-1").json()["generation"] == 0


@pytest.mark.parametrize(
    "change", ["vectors = x''", "vectors = zeroblob(length(vectors))", "windows = 2", "checksum = 0"]
)
def test_damaged_noise_is_reported(settings: Settings, fan_api: TestClient, encode: Fan, change: str) -> None:
    fan_api.post("/noise", params=FAN, content=encode(hum(0)))
    with closing(sqlite3.connect(settings.data_dir / DATABASE_FILE)) as database, database:
        database.execute(f"UPDATE noise SET {change}")
    answer = fan_api.post("/score", params=FAN, content=encode(hum(9)))
    assert answer.status_code == 503
    assert answer.json()["type"].endswith("machine-damaged")


# -- drift


@pytest.fixture
def watched(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """An application that writes scores at once."""
    monkeypatch.setattr("service.store.score_buffer.WRITE_SECONDS", 0.05)
    with in_process(settings) as api:
        yield api


def enroll(api: TestClient, fan: Fan, numbers: range, **params: str) -> None:
    api.put("/machines/fan-1")
    files = [("clips", (f"{number}.wav", fan(number))) for number in numbers]
    assert api.post("/enroll", params={**FAN, **params}, files=files).status_code == 201


@pytest.fixture(scope="module")
def short(fan: Fan) -> Fan:
    """`short(number, severity=0.0)` -> a clip of 1 s: drift takes many clips."""
    return lambda number, severity=0.0: fan(number, severity, seconds=1.0)


def drift(api: TestClient) -> dict[str, Any]:
    answer = api.get("/machines/fan-1/drift")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def test_drift_is_reported_with_numbers_and_what_to_do(settings: Settings, short: Fan) -> None:
    with in_process(settings) as api:
        enroll(api, short, range(30))
        assert (drift(api)["verdict"], drift(api)["domains"][0]["windows"][0]["n"]) == ("unknown", 0)
        score(api, *(short(number) for number in range(40, 60)))
        score(api, *(short(number) for number in range(60, 70)))
        steady = drift(api)
        assert steady["verdict"] == "steady"
        window = steady["domains"][0]["windows"][0]
        assert (window["window"], window["n"]) == ("last 100 clips", 30)
        assert abs(window["median_shift"]) < 1.0
        assert window["p_value"] > 0.0005
        score(api, *(short(number, severity=0.5) for number in range(80, 120)))
    with in_process(settings) as api:  # the scores are stored
        higher = drift(api)
        assert higher["verdict"] == "higher"
        assert "enroll recent healthy clips" in str(higher["advice"])
        first, day = higher["domains"][0]["windows"]
        assert (first["n"], day["n"]) == (70, 70)
        assert first["since"] == window["since"]
        assert first["median_shift"] > 1.0
        assert first["p_value"] < 0.0005
        enroll(api, short, range(120, 122))
        begun = drift(api)
        assert (begun["verdict"], begun["generation"]) == ("unknown", 2)
        assert "since the last change of the bank" in str(begun["advice"])


def test_scores_count_for_the_domain_that_they_are_nearest_to(full_api: TestClient, fan: Fan) -> None:
    enroll(full_api, lambda number: fan(number, domain="target"), range(5), domain="target")
    clips = score(
        full_api, *(fan(number) for number in range(40, 44)), *(fan(number, domain="target") for number in range(6, 9))
    )
    counts = {own["domain"]: own["windows"][0]["n"] for own in drift(full_api)["domains"]}
    assert counts == Counter(clip["domain"] for clip in clips)
    assert min(counts.values()) >= 3


def test_few_recordings_give_no_verdict(fan_api: TestClient, short: Fan) -> None:
    score(fan_api, *(short(number, severity=1.0) for number in range(40, 65)))
    found = drift(fan_api)
    assert found["verdict"] == "unknown"
    assert str(found["advice"]).startswith("Enroll 5 more recordings")


def test_drift_needs_a_bank(api: TestClient) -> None:
    assert api.get("/machines/fan-1/drift").status_code == 404
    api.put("/machines/fan-1")
    assert api.get("/machines/fan-1/drift").status_code == 409


def until(api: TestClient, line: str, *, there: bool = True) -> None:
    deadline = time.monotonic() + 20
    while (line in api.get("/metrics").text.splitlines()) is not there:
        assert time.monotonic() < deadline, (line, there)
        time.sleep(0.02)


def test_drift_is_a_metric_until_the_machine_is_deleted(watched: TestClient, short: Fan) -> None:
    enroll(watched, short, range(20))
    score(watched, *(short(number, severity=1.0) for number in range(40, 65)))
    until(watched, 'offkey_drift_machines{verdict="higher"} 1.0')
    shifts = [line for line in watched.get("/metrics").text.splitlines() if line.startswith("offkey_drift_median")]
    assert len(shifts) == 1
    assert shifts[0].startswith('offkey_drift_median_shift_sigma{domain="source",machine_id="fan-1"} ')
    assert float(shifts[0].split()[1]) > 1.0
    watched.delete("/machines/fan-1")
    text = watched.get("/metrics").text
    assert 'machine_id="fan-1"' not in text
    assert 'offkey_drift_machines{verdict="higher"}' not in text


def test_the_series_of_drift_are_bounded(api: TestClient) -> None:
    metrics = api.app.state.service.metrics
    for number in range(MAX_DRIFT_MACHINES + 20):
        metrics.drift(f"m{number}", "steady", {"source": 0.1, "target": 0.2})
    text = api.get("/metrics").text
    assert text.count("offkey_drift_median_shift_sigma{") == 2 * MAX_DRIFT_MACHINES
    assert f'offkey_drift_machines{{verdict="steady"}} {MAX_DRIFT_MACHINES + 20:.1f}' in text
    metrics.remove_machine("m0")
    metrics.drift("later", "higher", {"source": 1.0})
    assert 'machine_id="later"' in api.get("/metrics").text
