"""Clips recorded otherwise than the enrolled ones: shorter, at another rate, quieter, or through bad wiring."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import soxr
from fastapi.testclient import TestClient

from launch import in_process

Encode = Callable[..., bytes]
PUMP = {"machine_id": "pump-1"}
RATE = 16_000
SECONDS = 4.0
CLIPS = 12


def pump(seed: int, seconds: float = SECONDS) -> np.ndarray:
    """A healthy clip: harmonics of a shaft whose speed and strength vary, in noise that falls with frequency."""
    rng = np.random.default_rng(seed)
    count = round(seconds * RATE)
    turns = np.arange(count) / RATE * 48.0 * (1 + 0.01 * rng.standard_normal())
    orders = np.arange(1, 31)
    weights = orders**-0.7 * 10 ** (rng.normal(0, 1, len(orders)) / 20)
    tones = np.sin(2 * np.pi * (turns[:, None] * orders + rng.uniform(size=len(orders)))) @ weights
    flow = np.convolve(rng.standard_normal(count), np.exp(-np.arange(40) / 4), "same")
    found = tones / tones.std() + 0.7 * flow / flow.std()
    gain = 0.04 * 10 ** (rng.normal(0, 0.5) / 20)
    level: np.ndarray = gain * found
    return level


def squealing(seed: int, at: float, seconds: float = 0.15) -> np.ndarray:
    """A healthy clip with a short squeal."""
    clip = pump(seed)
    time = np.arange(len(clip)) / RATE - at
    burst = np.sin(2 * np.pi * 3_100 * time)
    squeal: np.ndarray = clip + 0.3 * burst * ((time >= 0) & (time < seconds))
    return squeal


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, encode: Encode) -> Iterator[TestClient]:
    """A service with a machine `pump-1` of 12 clips of 4 s at 16 kHz. Each has a quarter of the variants, for time."""
    with in_process(tmp_path_factory.mktemp("pump") / "data") as api:
        assert api.put("/machines/pump-1").status_code == 201
        files = [("clips", (f"{seed}.wav", encode(pump(seed), subtype="PCM_16"))) for seed in range(CLIPS)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("service.domain.nuisance._SCHEDULE", ((8, 4), (16, 2)))
            assert api.post("/enroll", params=PUMP, files=files).status_code == 201
        yield api


@pytest.fixture
def pump_api(shared: TestClient) -> TestClient:
    """The shared service with the threshold that a machine has at first."""
    assert shared.delete("/machines/pump-1/threshold").status_code == 200
    return shared


def score(api: TestClient, *clips: bytes) -> list[dict[str, Any]]:
    files = [("clips", (f"{number}.wav", clip)) for number, clip in enumerate(clips)]
    answer = api.post("/score", params=PUMP, files=files)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["clips"]
    return found


def kinds(clip: dict[str, Any]) -> set[str]:
    return {warning["kind"] for warning in clip["warnings"]}


def alarms(clips: list[dict[str, Any]]) -> int:
    return sum(clip["is_anomalous"] for clip in clips)


def test_healthy_clips_of_the_enrolled_length_have_a_promise(pump_api: TestClient, encode: Encode) -> None:
    found = score(pump_api, *(encode(pump(seed), subtype="PCM_16") for seed in range(100, 109)))
    assert alarms(found) <= 3
    for clip in found:
        if not clip["warnings"]:
            assert clip["condition"] == "like-enrolled"
            assert clip["promised_false_alarm_rate"] == pytest.approx(1 / (CLIPS + 1))
            assert (clip["promise_note"], clip["advice"]) == (None, None)
        if clip["decided_by"]["view"] == "steady":  # which is about a whole window
            assert (clip["decided_by"]["start_s"], clip["decided_by"]["end_s"]) == (0.0, SECONDS)
    assert sum(clip["condition"] == "like-enrolled" for clip in found) >= 6


@pytest.mark.parametrize("seconds", [2.0, 2.7])
def test_shorter_healthy_clips_raise_few_alarms(pump_api: TestClient, encode: Encode, seconds: float) -> None:
    found = score(pump_api, *(encode(pump(seed, seconds), subtype="PCM_16") for seed in range(120, 129)))
    assert alarms(found) <= 3
    assert not any("length" in kinds(clip) for clip in found)
    assert all(clip["p_value"] is not None for clip in found)
    whole = pump_api.get("/machines/pump-1/threshold").json()["decision_threshold"]
    assert {clip["decision_threshold"] for clip in found} != {whole}  # that of pieces as short


def test_files_of_a_higher_rate_raise_few_alarms(pump_api: TestClient, encode: Encode) -> None:
    clips = [soxr.resample(pump(seed), RATE, 48_000) for seed in range(140, 149)]
    found = score(pump_api, *(encode(clip, 48_000, subtype="PCM_16") for clip in clips))
    assert alarms(found) <= 3
    assert {clip["acoustics"]["sample_rate"] for clip in found} == {48_000}
    assert not any({"sample-rate", "out-of-band"} & kinds(clip) for clip in found)


@pytest.mark.parametrize("at", [0.6, 2.15, 3.7])
def test_a_short_squeal_decides_and_is_located(pump_api: TestClient, encode: Encode, at: float) -> None:
    healthy, found = score(pump_api, *(encode(clip, subtype="PCM_16") for clip in (pump(160), squealing(160, at))))
    assert found["is_anomalous"]
    assert found["anomaly_score"] > healthy["anomaly_score"]
    decided = found["decided_by"]
    assert decided["view"] == "event"
    assert decided["end_s"] - decided["start_s"] == pytest.approx(0.5, abs=0.01)
    assert decided["start_s"] < at + 0.075 < decided["end_s"]


def test_a_quieter_clip_is_unlike_the_enrolled_ones_and_has_no_promise(pump_api: TestClient, encode: Encode) -> None:
    (found,) = score(pump_api, encode(0.1 * pump(170), subtype="PCM_24"))
    assert "level" in kinds(found)
    assert found["condition"] == "unlike-enrolled"
    assert found["promised_false_alarm_rate"] is None
    assert "unlike the enrolled clips" in found["promise_note"]
    assert "level" in found["promise_note"]
    assert found["p_value"] is not None
    assert found["advice"].startswith("Record as the enrolled clips were recorded.")


@pytest.mark.parametrize(
    "choice", [{"rule": "manual", "decision_threshold": 3.5}, {"rule": "gamma", "false_alarm_rate": 0.1}]
)
def test_a_rule_without_a_promise_is_noted(pump_api: TestClient, encode: Encode, choice: dict[str, object]) -> None:
    assert pump_api.put("/machines/pump-1/threshold", json=choice).status_code == 200
    clips = [encode(pump(180, seconds), subtype="PCM_16") for seconds in (SECONDS, 2.0)]
    for found in score(pump_api, *clips):
        assert found["promised_false_alarm_rate"] is None
        assert f"A {choice['rule']} threshold promises no false-alarm rate" in found["promise_note"]
        if choice["rule"] == "manual":
            assert found["decision_threshold"] == 3.5
    threshold = pump_api.get("/machines/pump-1/threshold").json()
    assert threshold["promised_false_alarm_rate"] is None
    assert [own["promised_false_alarm_rate"] for own in threshold["domains"]] == [None]


def test_channels_that_nearly_cancel_get_a_warning(pump_api: TestClient, encode: Encode) -> None:
    clip = pump(190)
    wrong, right = (np.stack([clip, sign * 0.95 * clip], axis=1) for sign in (-1, 1))
    found, fine = score(pump_api, *(encode(both, subtype="PCM_24") for both in (wrong, right)))
    assert "polarity" in kinds(found)
    (detail,) = [warning["detail"] for warning in found["warnings"] if warning["kind"] == "polarity"]
    assert "opposite polarity" in detail
    assert "polarity" not in kinds(fine)


def test_channels_that_cancel_are_refused_with_the_reason(pump_api: TestClient, encode: Encode) -> None:
    clip = pump(191)
    answer = pump_api.post("/score", params=PUMP, content=encode(np.stack([clip, -clip], axis=1), subtype="PCM_24"))
    assert answer.status_code == 422
    assert answer.json()["type"].endswith("silent-audio")
    assert "opposite polarity" in answer.json()["detail"]


def test_sound_that_the_model_does_not_receive_gets_a_warning(pump_api: TestClient, encode: Encode) -> None:
    clip = soxr.resample(pump(192), RATE, 48_000)
    high = 0.1 * np.sin(2 * np.pi * 15_000 * np.arange(len(clip)) / 48_000)
    (found,) = score(pump_api, encode(clip + high, 48_000, subtype="PCM_16"))
    assert "out-of-band" in kinds(found)
    assert "8,000 Hz" in next(own["detail"] for own in found["warnings"] if own["kind"] == "out-of-band")


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_the_threshold_of_a_clip_agrees_with_its_decision(pump_api: TestClient, encode: Encode, rate: float) -> None:
    assert pump_api.put("/machines/pump-1/threshold", json={"false_alarm_rate": rate}).status_code == 200
    sounds = [*(pump(seed) for seed in range(200, 203)), *(pump(seed, 2.0) for seed in range(206, 209))]
    found = score(pump_api, *(encode(one, subtype="PCM_16") for one in (*sounds, squealing(212, 1.0))))
    assert {clip["is_anomalous"] for clip in found} == {True, False}
    shown = pump_api.get("/machines/pump-1/threshold").json()
    for clip in found:
        assert clip["is_anomalous"] == (clip["anomaly_score"] > clip["decision_threshold"])
        assert clip["is_anomalous"] == (clip["p_value"] <= max(rate, 1 / (CLIPS + 1)) + 1e-9)
        assert clip["domain"] == "source"
        if clip["seconds"] == SECONDS:
            assert clip["decision_threshold"] == shown["domains"][0]["decision_threshold"]
            assert clip["decision_threshold"] == shown["decision_threshold"]
