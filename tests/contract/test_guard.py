"""What sounds anomalous is not enrolled by mistake, and a false alarm can be taken back."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from launch import in_process
from service.bank import Calibration
from service.settings import Settings

Fan = Callable[..., bytes]
FAN = {"machine_id": "fan-1"}


def test_a_clip_that_sounds_anomalous_is_held_back(full_api: TestClient, fan: Fan) -> None:
    faulty = fan(90, severity=1.0)
    files = [("clips", ("faulty.wav", faulty)), ("clips", ("healthy_0.wav", fan(0)))]
    answer = full_api.post("/enroll", params=FAN, files=files)
    assert answer.status_code == 200
    held, duplicate = answer.json()["clips"]
    assert (held["clip_id"], held["status"], duplicate["status"]) == (None, "held-back", "duplicate")
    threshold = full_api.get("/machines/fan-1/threshold").json()["decision_threshold"]
    assert held["anomaly_score"] > threshold
    assert "sounds anomalous" in held["note"]
    assert "force" in held["note"]
    assert answer.json()["bank"]["source"] == 20
    forced = full_api.post("/enroll", params={**FAN, "force": True}, content=faulty)
    assert forced.status_code == 201
    assert forced.json()["clips"][0]["status"] == "enrolled"
    assert forced.json()["bank"]["source"] == 21


def test_the_others_of_the_request_are_enrolled(full_api: TestClient, fan: Fan) -> None:
    files = [("clips", ("faulty.wav", fan(90, severity=1.0))), ("clips", ("new.wav", fan(30)))]
    answer = full_api.post("/enroll", params=FAN, files=files)
    assert answer.status_code == 201
    assert [clip["status"] for clip in answer.json()["clips"]] == ["held-back", "enrolled"]
    assert answer.json()["clips"][1]["anomaly_score"] is not None
    assert answer.json()["bank"]["source"] == 21


def test_what_is_merely_above_the_threshold_is_enrolled(full_api: TestClient, fan: Fan) -> None:
    """One healthy clip in 20 is: a bank without them would call ever more healthy clips anomalous."""
    full_api.put("/machines/fan-1/threshold", json={"false_alarm_rate": 0.5})
    alarms = [
        number
        for number in range(30, 42)
        if full_api.post("/score", params=FAN, content=fan(number)).json()["clips"][0]["is_anomalous"]
    ]
    files = [("clips", (f"{number}.wav", fan(number))) for number in alarms]
    assert files
    clips = full_api.post("/enroll", params=FAN, files=files).json()["clips"]
    assert {clip["status"] for clip in clips} == {"enrolled"}


def test_a_manual_threshold_above_all_holds_nothing_back(full_api: TestClient, fan: Fan) -> None:
    full_api.put("/machines/fan-1/threshold", json={"rule": "manual", "decision_threshold": 1e9})
    clip = full_api.post("/enroll", params=FAN, content=fan(90, severity=1.0)).json()["clips"][0]
    assert clip["status"] == "enrolled"


@pytest.mark.parametrize("severity", [0.0, 1.0])
def test_a_small_bank_holds_nothing_back(fan_api: TestClient, fan: Fan, severity: float) -> None:
    clip = fan_api.post("/enroll", params=FAN, content=fan(90, severity=severity)).json()["clips"][0]
    assert clip["status"] == "enrolled"
    assert clip["anomaly_score"] is not None


def test_a_new_domain_is_not_guarded(full_api: TestClient, fan: Fan) -> None:
    shifted = full_api.post("/enroll", params={**FAN, "domain": "target"}, content=fan(0, domain="target"))
    assert shifted.json()["clips"][0]["status"] == "enrolled"
    assert shifted.json()["clips"][0]["anomaly_score"] is None


def test_many_pieces_of_one_recording_are_no_bank_for_the_guard(api: TestClient, fan: Fan) -> None:
    api.put("/machines/fan-1")
    files = [("clips", (f"{number}.wav", fan(number))) for number in range(6)]
    tape = {**FAN, "recording": "tape-1"}
    assert api.post("/enroll", params=tape, files=files).status_code == 201
    answer = api.post("/enroll", params=FAN, content=fan(6))
    assert answer.status_code == 201
    assert answer.json()["clips"][0]["anomaly_score"] is None


@pytest.mark.parametrize("few", [0, 100])
def test_a_deleted_clip_vouches_for_no_other(
    full_api: TestClient, fan: Fan, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr("service.usecases.guard._FEW_CLIPS", few)
    forced = full_api.post("/enroll", params={**FAN, "force": True}, content=fan(90, severity=1.0)).json()
    full_api.get("/machines/fan-1")  # caches a bank with it
    full_api.delete(f"/machines/fan-1/clips/{forced['clips'][0]['clip_id']}")
    again = full_api.post("/enroll", params=FAN, content=fan(91, severity=1.0)).json()
    assert again["clips"][0]["status"] == "held-back"


def test_a_cached_bank_is_fresh_enough_unless_a_clip_was_forced(
    full_api: TestClient, fan: Fan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.usecases.guard._FEW_CLIPS", 0)
    built, fit = [], Calibration.fit
    monkeypatch.setattr(Calibration, "fit", lambda *given: built.append(1) or fit(*given))
    full_api.get("/machines/fan-1/threshold")  # caches a bank of 20 clips
    for number in range(50, 53):
        answer = full_api.post("/enroll", params=FAN, content=fan(number)).json()
        assert answer["clips"][0]["status"] == "enrolled"
        assert answer["clips"][0]["anomaly_score"] is not None
    answer = full_api.post("/enroll", params=FAN, content=fan(89, severity=1.0)).json()
    assert answer["clips"][0]["status"] == "held-back"
    assert len(built) == 1
    # An older bank lacks the new operating mode that was just enrolled.
    files = [("clips", (f"{number}.wav", fan(number, severity=1.0))) for number in range(90, 96)]
    full_api.post("/enroll", params={**FAN, "force": True}, files=files)
    answer = full_api.post("/enroll", params=FAN, content=fan(96, severity=1.0)).json()
    assert answer["clips"][0]["status"] == "enrolled"
    assert len(built) == 2


def test_near_repeats_are_noted(full_api: TestClient, fan: Fan) -> None:
    almost = fan(3)[:-2] + b"\x01\x00"  # one other sample
    clip = full_api.post("/enroll", params=FAN, content=almost).json()["clips"][0]
    assert clip["status"] == "enrolled"
    assert "nearly repeats" in clip["note"]
    assert "healthy_3.wav" in clip["note"]
    known = full_api.post("/enroll", params={**FAN, "recording": "tape-1"}, content=almost[:-2] + b"\x02\x00")
    assert known.json()["clips"][0]["note"] is None  # pieces of a recording may repeat each other


def test_feedback_enrolls_and_says_what_changes(full_api: TestClient, fan: Fan) -> None:
    files = [("clips", (f"alarm_{number}.wav", fan(number, severity=1.0))) for number in range(90, 94)]
    answer = full_api.post("/feedback", params=FAN, files=files).json()
    assert answer["generation"] == 2
    assert [clip["name"] for clip in answer["clips"]] == [name for _, (name, _) in files]
    for clip in answer["clips"]:
        assert clip["status"] == "enrolled"
        assert clip["before"]["is_anomalous"]
        assert clip["after"]["anomaly_score"] < clip["before"]["anomaly_score"]
        assert [clip[when]["calibration_version"] for when in ("before", "after")] == [
            "1:mahalanobis:conformal:0.05",
            "2:mahalanobis:conformal:0.05",
        ]
        assert not clip["after"]["is_anomalous"]  # each has three of its like now
    assert full_api.get("/machines/fan-1").json()["clips"]["source"] == 24


def test_feedback_needs_a_bank(api: TestClient, fan: Fan) -> None:
    api.put("/machines/fan-1")
    assert api.post("/feedback", params=FAN, content=fan(0)).status_code == 409
    assert api.get("/machines/fan-1").json()["clips"] == {"source": 0, "target": 0}


def test_a_false_alarm_among_healthy_clips_is_explained(full_api: TestClient, fan: Fan) -> None:
    """It is the only clip of its kind. A similar clip would raise the alarm again if the threshold had not moved."""
    clip = full_api.post("/feedback", params=FAN, content=fan(90, severity=1.0)).json()["clips"][0]
    assert clip["after"]["decision_threshold"] > clip["before"]["decision_threshold"]
    again = full_api.post("/feedback", params=FAN, content=fan(90, severity=1.0)).json()["clips"][0]
    assert (again["status"], again["clip_id"]) == ("duplicate", clip["clip_id"])


def test_feedback_decodes_a_clip_once(settings: Settings, fan: Fan) -> None:
    with in_process(settings, max_decoded_samples=3 * 16_000 * 5) as api:
        api.put("/machines/fan-1")
        files = [("clips", (f"{number}.wav", fan(number))) for number in range(5)]
        assert api.post("/enroll", params=FAN, files=files).status_code == 201
        files = [("clips", (f"{number}.wav", fan(number))) for number in range(5, 10)]
        assert api.post("/feedback", params=FAN, files=files).status_code == 200


def test_a_recording_is_of_one_domain(fan_api: TestClient, fan: Fan) -> None:
    tape = {**FAN, "recording": "tape-1"}
    assert fan_api.post("/enroll", params=tape, content=fan(10)).status_code == 201
    answer = fan_api.post("/enroll", params={**tape, "domain": "target"}, content=fan(11))
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:offkey:problem:domain-conflict"
    assert "'tape-1'" in answer.json()["detail"]
    assert fan_api.get("/machines/fan-1").json()["clips"] == {"source": 6, "target": 0}


def test_a_duplicate_of_another_recording_is_pointed_out(fan_api: TestClient, fan: Fan) -> None:
    clip = fan_api.post("/enroll", params={**FAN, "recording": "tape-1"}, content=fan(0)).json()["clips"][0]
    assert clip["status"] == "duplicate"
    assert "its own recording" in clip["note"]
    assert str(clip["clip_id"]) in clip["note"]


@pytest.mark.parametrize("recording", ["", "x" * 256, "a\nb"])
def test_recordings_have_usable_names(fan_api: TestClient, fan: Fan, recording: str) -> None:
    asked = fan_api.post("/enroll", params={**FAN, "recording": recording}, content=fan(10))
    form = fan_api.post("/enroll", data={**FAN, "recording": recording}, files=[("clips", ("a.wav", fan(10)))])
    assert (asked.status_code, form.status_code) == (422, 422)
    assert fan_api.get("/machines/fan-1").json()["clips"]["source"] == 5


def test_the_recording_may_be_a_form_field(fan_api: TestClient, fan: Fan) -> None:
    files = [("clips", (f"{number}.wav", fan(number))) for number in (10, 11)]
    assert fan_api.post("/enroll", data={**FAN, "recording": "tape-1"}, files=files).status_code == 201
    source = fan_api.get("/machines/fan-1/threshold").json()["domains"][0]
    assert (source["clips"], source["recordings"]) == (7, 6)


def test_identical_sounds_give_finite_numbers(api: TestClient, fan: Fan) -> None:
    """Twenty copies that differ in one inaudible sample: distances and deviations are 0."""
    api.put("/machines/fan-1")
    files = [("clips", (f"{n}.wav", fan(0)[:-2] + n.to_bytes(2, "little"))) for n in range(20)]
    assert api.post("/enroll", params=FAN, files=files).status_code == 201
    for rule in ("conformal", "gamma"):
        threshold = api.put("/machines/fan-1/threshold", json={"rule": rule}).json()["threshold"]
        assert abs(threshold["decision_threshold"]) < 1e6
        copy = fan(0)[:-2] + b"\x30\x00"
        same, other = (api.post("/score", params=FAN, content=clip).json()["clips"][0] for clip in (copy, fan(1)))
        assert abs(same["anomaly_score"] - threshold["decision_threshold"]) < 1
        assert (other["is_anomalous"], other["p_value"]) == (True, 1 / 21)
    copy = api.post("/enroll", params=FAN, content=fan(0)[:-2] + b"\x63\x00").json()["clips"][0]
    assert "nearly repeats" in copy["note"]
