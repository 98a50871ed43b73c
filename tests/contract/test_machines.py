"""`/machines` and what lies below it."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from launch import in_process
from service.domain.backends import DEFAULT_BACKEND
from service.settings import Settings


def test_a_machine_from_creation_to_deletion(api: TestClient, fan: Callable[..., bytes]) -> None:
    created = api.put("/machines/fan-1", json={"description": "Hall 2"})
    assert api.put("/machines/fan-1/threshold", json={"false_alarm_rate": 0.1}).status_code == 200
    assert created.status_code == 201
    assert created.json()["threshold"] is None
    assert created.json()["clips"] == {"source": 0, "target": 0}
    for number in range(3):
        api.post("/enroll", params={"machine_id": "fan-1"}, content=fan(number))
    shown = api.get("/machines/fan-1").json()
    assert shown["description"] == "Hall 2"
    assert shown["generation"] == 3
    assert shown["threshold"]["requested_false_alarm_rate"] == 0.1
    assert shown["embedding_space_id"] == api.get("/info").json()["embedding_space_id"]
    assert api.delete("/machines/fan-1").status_code == 204
    assert api.get("/machines/fan-1").status_code == 404


def test_settings_change_without_enrolling_again(fan_api: TestClient, fan: Callable[..., bytes]) -> None:
    strict = fan_api.get("/machines/fan-1/threshold").json()
    loose = fan_api.put("/machines/fan-1/threshold", json={"false_alarm_rate": 0.5}).json()
    assert loose["generation"] == 1
    assert loose["threshold"]["promised_false_alarm_rate"] == 0.5
    assert loose["threshold"]["calibration_version"] == f"1:{DEFAULT_BACKEND}:conformal:0.5"
    assert fan_api.put("/machines/fan-1", json={"description": "moved"}).json()["threshold"] == loose["threshold"]
    reset = fan_api.delete("/machines/fan-1/threshold").json()
    assert reset["threshold_settings"] == {"rule": "conformal", "false_alarm_rate": 0.05, "decision_threshold": None}
    assert reset["threshold"] == strict
    assert strict["decision_threshold"] >= loose["threshold"]["decision_threshold"]


def test_a_manual_threshold_decides_and_promises_nothing(fan_api: TestClient, fan: Callable[..., bytes]) -> None:
    def decisions(value: float) -> tuple[bool, dict]:
        settings = {"rule": "manual", "decision_threshold": value}
        threshold = fan_api.put("/machines/fan-1/threshold", json=settings).json()["threshold"]
        scored = fan_api.post("/score", params={"machine_id": "fan-1"}, content=fan(7, severity=1.0)).json()
        assert scored["threshold"] == threshold
        return scored["clips"][0]["is_anomalous"], threshold

    alarm, low = decisions(-1e6)
    silence, high = decisions(1e6)
    assert (alarm, silence) == (True, False)
    assert (low["domains"][0]["above_threshold"], high["domains"][0]["above_threshold"]) == (5, 0)
    assert low["requested_false_alarm_rate"] is None
    assert low["promised_false_alarm_rate"] is None
    assert low["calibration_version"] != high["calibration_version"]
    assert low["warnings"][0] == "A manual threshold promises no false-alarm rate; only the conformal rule does."


def test_the_gamma_rule_takes_the_quantile_of_the_dcase_baselines(fan_api: TestClient) -> None:
    shown = fan_api.put("/machines/fan-1/threshold", json={"rule": "gamma"}).json()
    assert shown["threshold"]["requested_false_alarm_rate"] == 0.1
    assert shown["threshold"]["promised_false_alarm_rate"] is None
    wide = fan_api.put("/machines/fan-1/threshold", json={"rule": "gamma", "false_alarm_rate": 0.4}).json()
    assert wide["threshold"]["decision_threshold"] < shown["threshold"]["decision_threshold"]


def test_pieces_of_one_recording_count_as_one(api: TestClient, fan: Callable[..., bytes]) -> None:
    api.put("/machines/fan-1")
    for number in range(6):
        asked = {"machine_id": "fan-1", "recording": f"tape-{number // 2}"}
        assert api.post("/enroll", params=asked, content=fan(number)).status_code == 201
    source = api.get("/machines/fan-1/threshold").json()["domains"][0]
    assert (source["clips"], source["recordings"]) == (6, 3)
    assert source["lowest_false_alarm_rate"] == 1 / 4
    assert [clip["recording"] for clip in api.get("/machines/fan-1/clips").json()["clips"]] == [
        f"tape-{number // 2}" for number in range(6)
    ]


def test_a_deleted_clip_is_no_longer_compared_with(fan_api: TestClient, fan: Callable[..., bytes]) -> None:
    clips = fan_api.get("/machines/fan-1/clips").json()["clips"]
    assert [clip["name"] for clip in clips] == [f"healthy_{number}.wav" for number in range(5)]
    gone = clips[2]
    answer = fan_api.delete(f"/machines/fan-1/clips/{gone['clip_id']}")
    assert answer.json()["generation"] == 2
    assert answer.json()["clips"]["source"] == 4
    scored = fan_api.post("/score", params={"machine_id": "fan-1", "neighbors": 4}, content=fan(2)).json()
    near = {neighbor["clip_id"] for neighbor in scored["clips"][0]["windows"][0]["neighbors"]}
    assert gone["clip_id"] not in near
    assert fan_api.delete(f"/machines/fan-1/clips/{gone['clip_id']}").status_code == 404


def test_a_machine_made_again_knows_nothing_of_the_old_one(fan_api: TestClient, fan: Callable[..., bytes]) -> None:
    fan_api.post("/score", params={"machine_id": "fan-1"}, content=fan(0))
    fan_api.delete("/machines/fan-1")
    fan_api.put("/machines/fan-1")
    files = [("clips", (f"other_{number}.wav", fan(number))) for number in range(50, 53)]
    fan_api.post("/enroll", params={"machine_id": "fan-1"}, files=files)
    scored = fan_api.post("/score", params={"machine_id": "fan-1"}, content=fan(0)).json()
    assert scored["generation"] == 3  # enrolled, deleted, enrolled: an old answer is never taken for a new one
    assert scored["clips"][0]["windows"][0]["neighbors"][0]["name"].startswith("other_")


def test_a_machine_is_shown_without_a_graph(
    settings: Settings, fan: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.bank.index.HnswIndex.__init__", lambda *_, **__: pytest.fail("a graph was built"))
    with in_process(settings, exact_limit=1) as api:
        api.put("/machines/fan-1")
        files = [("clips", (f"{number}.wav", fan(number))) for number in range(3)]
        assert api.post("/enroll", params={"machine_id": "fan-1"}, files=files).status_code == 201
        assert api.get("/machines/fan-1").json()["threshold"]["decision_threshold"] is not None


def test_lists_come_in_pages(api: TestClient) -> None:
    for number in range(5):
        api.put(f"/machines/m{number}")
    first = api.get("/machines", params={"limit": 3}).json()
    assert [machine["machine_id"] for machine in first["machines"]] == ["m0", "m1", "m2"]
    second = api.get("/machines", params={"limit": 3, "after": first["next_after"]}).json()
    assert [machine["machine_id"] for machine in second["machines"]] == ["m3", "m4"]
    assert second["next_after"] is None


def test_clips_come_in_pages(fan_api: TestClient) -> None:
    first = fan_api.get("/machines/fan-1/clips", params={"limit": 2}).json()
    rest = fan_api.get("/machines/fan-1/clips", params={"after": first["next_after"]}).json()
    assert len(first["clips"]) == 2
    assert len(rest["clips"]) == 3
    clip = first["clips"][0]
    assert clip["sample_rate"] == 16_000
    assert clip["seconds"] == pytest.approx(3.0)
    assert clip["windows"] == 1
