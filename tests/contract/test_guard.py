"""What sounds anomalous is not enrolled by mistake, and a false alarm can be taken back."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

Fan = Callable[..., bytes]
FAN = {"machine_id": "fan-1"}


@pytest.fixture
def full_api(api: TestClient, fan: Fan) -> TestClient:
    """With a machine fan-1 of 20 healthy clips."""
    api.put("/machines/fan-1")
    files = [("clips", (f"healthy_{number}.wav", fan(number))) for number in range(20)]
    assert api.post("/enroll", params=FAN, files=files).status_code == 201
    return api


def test_a_clip_that_sounds_anomalous_is_held_back(full_api: TestClient, fan: Fan) -> None:
    faulty = fan(90, severity=1.0)
    files = [("clips", ("faulty.wav", faulty)), ("clips", ("healthy_0.wav", fan(0)))]
    answer = full_api.post("/enroll", params=FAN, files=files)
    assert answer.status_code == 200
    held, duplicate = answer.json()["clips"]
    assert (held["clip_id"], held["status"], duplicate["status"]) == (None, "held-back", "duplicate")
    threshold = full_api.get("/machines/fan-1/threshold").json()["decision_threshold"]
    assert held["anomaly_score"] > threshold
    assert "force=true" in held["note"]
    assert answer.json()["bank"]["source"] == 20
    forced = full_api.post("/enroll", params={**FAN, "force": True}, content=faulty)
    assert forced.status_code == 201
    assert forced.json()["clips"][0]["status"] == "enrolled"
    assert forced.json()["bank"]["source"] == 21


def test_the_others_of_the_request_are_enrolled(full_api: TestClient, fan: Fan) -> None:
    full_api.put("/machines/fan-1/threshold", json={"false_alarm_rate": 0.01})
    healthy = next(
        number
        for number in range(30, 60)
        if not full_api.post("/score", params=FAN, content=fan(number)).json()["clips"][0]["is_anomalous"]
    )
    files = [("clips", ("faulty.wav", fan(90, severity=1.0))), ("clips", ("new.wav", fan(healthy)))]
    answer = full_api.post("/enroll", params=FAN, files=files)
    assert answer.status_code == 201
    assert [clip["status"] for clip in answer.json()["clips"]] == ["held-back", "enrolled"]
    assert answer.json()["clips"][1]["anomaly_score"] is not None
    assert answer.json()["bank"]["source"] == 21


def test_a_small_bank_and_a_new_domain_are_not_guarded(fan_api: TestClient, full_api: TestClient, fan: Fan) -> None:
    shifted = full_api.post("/enroll", params={**FAN, "domain": "target"}, content=fan(0, domain="target"))
    assert shifted.json()["clips"][0]["status"] == "enrolled"
    assert shifted.json()["clips"][0]["anomaly_score"] is None


def test_near_repeats_are_noted(full_api: TestClient, fan: Fan) -> None:
    almost = fan(3)[:-2] + b"\x01\x00"  # one other sample
    clip = full_api.post("/enroll", params=FAN, content=almost).json()["clips"][0]
    assert clip["status"] == "enrolled"
    assert "nearly repeats" in clip["note"]
    assert "healthy_3.wav" in clip["note"]


def test_feedback_enrolls_and_says_what_changes(full_api: TestClient, fan: Fan) -> None:
    files = [("clips", (f"alarm_{number}.wav", fan(number, severity=1.0))) for number in range(90, 94)]
    answer = full_api.post("/feedback", params=FAN, files=files).json()
    assert answer["generation"] == 2
    assert [clip["name"] for clip in answer["clips"]] == [name for _, (name, _) in files]
    for clip in answer["clips"]:
        assert clip["status"] == "enrolled"
        assert clip["before"]["is_anomalous"]
        assert clip["after"]["anomaly_score"] < clip["before"]["anomaly_score"]
        assert not clip["after"]["is_anomalous"]  # each has three of its like now
    assert full_api.get("/machines/fan-1").json()["clips"]["source"] == 24


def test_feedback_needs_a_bank(api: TestClient, fan: Fan) -> None:
    api.put("/machines/fan-1")
    assert api.post("/feedback", params=FAN, content=fan(0)).status_code == 409
    assert api.get("/machines/fan-1").json()["clips"] == {"source": 0, "target": 0}
