"""`POST /enroll` and `POST /score`: what a client is promised."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from launch import in_process
from service.settings import Settings
from service.synthetic import MACHINES

Fan = Callable[..., bytes]
Encode = Callable[..., bytes]

FAN = {"machine_id": "fan-1"}


def score(api: TestClient, data: bytes, **params: object) -> dict:
    answer = api.post("/score", params={**FAN, **params}, content=data)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_faulty_clip_scores_above_healthy_ones(fan_api: TestClient, fan: Fan) -> None:
    healthy = [score(fan_api, fan(number))["clips"][0] for number in range(20, 25)]
    faulty = [score(fan_api, fan(number, severity=1.0))["clips"][0] for number in range(20, 25)]
    assert min(c["anomaly_score"] for c in faulty) > max(c["anomaly_score"] for c in healthy)
    assert all(c["is_anomalous"] for c in faulty)


def test_an_enrolled_clip_scores_lowest(fan_api: TestClient, fan: Fan) -> None:
    enrolled = score(fan_api, fan(0))["clips"][0]
    other = score(fan_api, fan(30))["clips"][0]
    assert enrolled["anomaly_score"] < other["anomaly_score"]
    neighbor = enrolled["windows"][0]["neighbors"][0]
    assert neighbor["name"] == "healthy_0.wav"
    assert neighbor["distance"] < 1e-5


def test_the_decision_is_score_over_threshold(fan_api: TestClient, fan: Fan) -> None:
    for severity in (0.0, 0.3, 1.0):
        answer = score(fan_api, fan(40, severity=severity))
        clip = answer["clips"][0]
        assert clip["is_anomalous"] == (clip["anomaly_score"] > clip["decision_threshold"])
        assert clip["decision_threshold"] == answer["threshold"]["decision_threshold"]  # of one domain
        assert answer["threshold"]["promised_false_alarm_rate"] == pytest.approx(1 / 6)


def test_the_answer_says_what_is_promised_for_which_domain(fan_api: TestClient, fan: Fan) -> None:
    alone = score(fan_api, fan(40))["threshold"]
    assert [(d["domain"], d["clips"], d["pooled_scale"]) for d in alone["domains"]] == [("source", 5, False)]
    assert alone["warnings"] == [
        "5 source recordings promise a false-alarm rate of 0.167 there, not the requested 0.05. "
        "Enroll 14 more of the source domain."
    ]
    fan_api.post("/enroll", params={**FAN, "domain": "target"}, content=fan(1, domain="target"))
    both = score(fan_api, fan(40))["threshold"]
    source, target = both["domains"]
    own = {"decision_threshold": alone["domains"][0]["decision_threshold"]}  # the domains share a covariance
    assert {**source, **own} == alone["domains"][0]
    assert target == {
        "domain": "target",
        "clips": 1,
        "compared_clips": 1,
        "recordings": 1,
        "above_threshold": target["above_threshold"],
        "decision_threshold": source["decision_threshold"],
        "promised_false_alarm_rate": None,
        "lowest_false_alarm_rate": None,
        "pooled_scale": True,
    }
    assert both["promised_false_alarm_rate"] is None
    assert len(both["warnings"]) == 3
    assert "1 target recording promises no false-alarm rate there. Enroll 18 more" in both["warnings"][1]
    assert "the other domain's deviation is used. Enroll 4 more." in both["warnings"][2]
    fan_api.put("/machines/fan-1/threshold", json={"false_alarm_rate": 0.3})
    files = [("clips", (f"{number}.wav", fan(number, domain="target"))) for number in range(2, 6)]
    fan_api.post("/enroll", params={**FAN, "domain": "target"}, files=files)
    few = score(fan_api, fan(40))["threshold"]["warnings"]
    assert [line.partition(":")[0] for line in few] == ["5 source recordings", "5 target recordings"]
    assert all("varies much from bank to bank. Enroll 15 more." in line for line in few)


@pytest.mark.parametrize("content_type", ["audio/wav", "application/octet-stream", "application/x-www-form-urlencoded"])
def test_a_raw_body_is_audio_whatever_curl_calls_it(fan_api: TestClient, fan: Fan, content_type: str) -> None:
    answer = fan_api.post("/score", params=FAN, content=fan(50), headers={"Content-Type": content_type})
    assert answer.status_code == 200
    assert answer.json()["clips"][0]["name"].startswith("clip-")


def test_raw_and_multipart_bodies_score_the_same(fan_api: TestClient, fan: Fan) -> None:
    files = [("clips", (f"{number}.wav", fan(number))) for number in (51, 52)]
    together = fan_api.post("/score", data=FAN, files=files).json()["clips"]
    apart = [score(fan_api, fan(number))["clips"][0] for number in (51, 52)]
    assert [clip["name"] for clip in together] == ["51.wav", "52.wav"]
    np.testing.assert_allclose(
        [clip["anomaly_score"] for clip in together], [clip["anomaly_score"] for clip in apart], atol=1e-6
    )


def test_the_container_of_the_audio_does_not_matter(fan_api: TestClient, fan: Fan, encode: Encode) -> None:
    samples = MACHINES["fan-synthetic"].clip(split="test", domain="source", number=1, seconds=3.0)
    samples = np.round(samples * 32_767).astype(np.int16)  # the encoders round floats differently
    scores = [
        score(fan_api, encode(samples, container=container, subtype="PCM_16"))["clips"][0]["anomaly_score"]
        for container in ("WAV", "FLAC", "AIFF")
    ]
    np.testing.assert_allclose(scores, scores[0], atol=1e-6)


def test_a_long_recording_is_answered_window_by_window(fan_api: TestClient, fan: Fan) -> None:
    """Windows are as long as the longest enrolled clip, which lasts 3 s."""
    clip = score(fan_api, fan(60, seconds=10.0))["clips"][0]
    assert [w["start_s"] for w in clip["windows"]] == pytest.approx([0.0, 3.0, 6.0, 7.0])
    assert [w["end_s"] for w in clip["windows"]] == pytest.approx([3.0, 6.0, 9.0, 10.0])
    assert clip["anomaly_score"] == pytest.approx(np.mean([w["anomaly_score"] for w in clip["windows"]]))


def test_a_recording_as_long_as_enrolled_ones_has_the_windows_of_the_model(api: TestClient, fan: Fan) -> None:
    info = api.get("/info").json()
    window, hop = info["window_seconds"], info["hop_seconds"]
    seconds = window + hop + 1.5
    api.put("/machines/fan-1")
    files = [("clips", (f"{number}.wav", fan(number, seconds=seconds))) for number in range(2)]
    assert api.post("/enroll", params=FAN, files=files).status_code == 201
    clip = score(api, fan(60, seconds=seconds))["clips"][0]
    assert [w["start_s"] for w in clip["windows"]] == pytest.approx([0.0, hop, seconds - window])
    assert [w["end_s"] for w in clip["windows"]] == pytest.approx([window, window + hop, seconds])
    assert clip["anomaly_score"] == max(w["anomaly_score"] for w in clip["windows"])


def test_a_fault_in_one_window_raises_the_clip(fan_api: TestClient, encode: Encode) -> None:
    def part(number: int, severity: float) -> np.ndarray:
        return MACHINES["fan-synthetic"].clip(split="test", domain="source", number=number, severity=severity)

    long = np.concatenate([part(1, 0.0), part(2, 1.0), part(3, 0.0)])
    clip = score(fan_api, encode(long, subtype="PCM_16"))["clips"][0]
    worst = max(clip["windows"], key=lambda window: window["anomaly_score"])
    assert worst["start_s"] < 20.0
    assert worst["end_s"] > 10.0
    assert clip["is_anomalous"]


def test_as_many_neighbors_as_asked_for_nearest_first(fan_api: TestClient, fan: Fan) -> None:
    neighbors = score(fan_api, fan(70), neighbors=5)["clips"][0]["windows"][0]["neighbors"]
    distances = [neighbor["distance"] for neighbor in neighbors]
    assert len({neighbor["clip_id"] for neighbor in neighbors}) == 5
    assert distances == sorted(distances)


def test_the_target_domain_is_normal_once_enrolled(fan_api: TestClient, fan: Fan) -> None:
    before = score(fan_api, fan(20, domain="target"))["clips"][0]["anomaly_score"]
    files = [("clips", (f"{number}.wav", fan(number, domain="target"))) for number in range(3)]
    answer = fan_api.post("/enroll", params={**FAN, "domain": "target"}, files=files)
    assert answer.status_code == 201
    assert answer.json()["bank"] == {"source": 5, "target": 3}
    after = score(fan_api, fan(20, domain="target"))["clips"][0]
    assert after["anomaly_score"] < before
    assert after["windows"][0]["neighbors"][0]["domain"] == "target"


def test_enrolling_again_adds_nothing_and_says_so(fan_api: TestClient, fan: Fan) -> None:
    before = fan_api.get("/machines/fan-1").json()
    answer = fan_api.post("/enroll", params=FAN, content=fan(3))
    assert answer.status_code == 200
    assert answer.json()["clips"][0]["status"] == "duplicate"
    assert answer.json()["generation"] == before["generation"]
    assert fan_api.get("/machines/fan-1").json() == before


def test_a_clip_that_is_deleted_meanwhile_is_enrolled_again(
    fan_api: TestClient, fan: Fan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another request deletes a clip just after this one found it enrolled."""
    store = fan_api.app.state.service.store
    enrolled, deleted = store.enrolled, []

    def enrolled_then_deleted(machine_id: str, sha256s: list[str]) -> object:
        found = enrolled(machine_id, sha256s)
        if not deleted:
            with store.begin("fan-1") as tx:
                deleted.append(tx.delete_clip(next(iter(found[1].values())).clip_id))
        return found

    monkeypatch.setattr(store, "enrolled", enrolled_then_deleted)
    files = [("clips", (f"{number}.wav", fan(number))) for number in (3, 9)]
    answer = fan_api.post("/enroll", params=FAN, files=files).json()
    assert [clip["status"] for clip in answer["clips"]] == ["enrolled", "enrolled"]
    listed = {clip["clip_id"] for clip in fan_api.get("/machines/fan-1/clips").json()["clips"]}
    assert {clip["clip_id"] for clip in answer["clips"]} <= listed
    assert answer["bank"]["source"] == len(listed) == 6


def test_clips_do_not_go_to_a_machine_that_was_made_again_meanwhile(
    fan_api: TestClient, fan: Fan, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = fan_api.app.state.service
    embed = service.encoders.current.embed

    def embed_while_the_machine_is_created_again(*arguments: Any) -> object:
        fan_api.delete("/machines/fan-1")
        fan_api.put("/machines/fan-1")
        return embed(*arguments)

    monkeypatch.setattr(service.encoders.current, "embed", embed_while_the_machine_is_created_again)
    answer = fan_api.post("/enroll", params=FAN, content=fan(9))
    assert answer.status_code == 404
    assert "was deleted while" in answer.json()["detail"]
    assert fan_api.get("/machines/fan-1").json()["clips"] == {"source": 0, "target": 0}


def test_the_same_clip_twice_in_one_request_is_enrolled_once(fan_api: TestClient, fan: Fan) -> None:
    files = [("clips", ("a.wav", fan(9))), ("clips", ("b.wav", fan(9)))]
    answer = fan_api.post("/enroll", params=FAN, files=files).json()
    assert [clip["status"] for clip in answer["clips"]] == ["enrolled", "duplicate"]
    assert len({clip["clip_id"] for clip in answer["clips"]}) == 1
    assert answer["bank"]["source"] == 6


def test_every_enrollment_counts_in_the_next_score(fan_api: TestClient, fan: Fan) -> None:
    for number in range(10, 14):
        generation = fan_api.post("/enroll", params=FAN, content=fan(number)).json()["generation"]
        assert score(fan_api, fan(99))["generation"] == generation
        assert score(fan_api, fan(number))["clips"][0]["windows"][0]["neighbors"][0]["distance"] < 1e-5


def test_one_bad_clip_keeps_the_whole_request_out(fan_api: TestClient, fan: Fan) -> None:
    before = fan_api.get("/machines/fan-1").json()
    files = [("clips", ("good.wav", fan(15))), ("clips", ("bad.wav", b"no audio"))]
    answer = fan_api.post("/enroll", params=FAN, files=files)
    assert answer.status_code == 422
    assert answer.json()["clip"] == "bad.wav"
    assert fan_api.get("/machines/fan-1").json() == before


def test_names_come_without_folders_and_control_characters(fan_api: TestClient, fan: Fan) -> None:
    files = [("clips", ("../../etc/\x1b[31mred\x07.wav", fan(16)))]
    fan_api.post("/enroll", params=FAN, files=files)
    names = [clip["name"] for clip in fan_api.get("/machines/fan-1/clips").json()["clips"]]
    assert all(name.isprintable() and "/" not in name for name in names)


def test_scores_are_the_same_after_a_restart(settings: Settings, fan: Fan) -> None:
    probes = [fan(80), fan(81, severity=0.5), fan(82, domain="target")]

    def scores(api: TestClient) -> list[float]:
        return [score(api, probe)["clips"][0]["anomaly_score"] for probe in probes]

    with in_process(settings) as api:
        api.put("/machines/fan-1")
        for number in range(4):
            api.post("/enroll", params=FAN, content=fan(number))
        for number in range(2):
            api.post("/enroll", params={**FAN, "domain": "target"}, content=fan(number, domain="target"))
        before = scores(api)
    with in_process(settings) as api:
        np.testing.assert_allclose(scores(api), before, atol=1e-6)


def test_hnsw_scores_like_exact_search(settings: Settings, fan: Fan) -> None:
    found = []
    for own in ({}, {"exact_limit": 1, "data_dir": settings.data_dir / "graph"}):
        with in_process(settings, **own) as api:
            api.put("/machines/fan-1")
            files = [("clips", (f"{number}.wav", fan(number))) for number in range(6)]
            api.post("/enroll", params=FAN, files=files)
            found.append([score(api, fan(number))["clips"][0]["anomaly_score"] for number in (0, 90, 91)])
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)
