"""Jobs over HTTP: archives, snapshots and moves to another bundle, their progress, cancellation and resumption."""

import io
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from launch import in_process
from service.jobs import archives
from service.settings import Settings
from service.store.snapshot.restore import restore
from service.store.snapshot.write import unpack

Fan = Callable[..., bytes]
FAN = {"machine_id": "fan-1"}
ZIP = {"Content-Type": "application/zip"}


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def post(api: TestClient, data: bytes, **params: str) -> Any:
    return api.post("/enroll", params={**FAN, **params}, content=data, headers=ZIP)


def ended(api: TestClient, job: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while job["state"] in ("queued", "running"):
        assert time.monotonic() < deadline, job
        time.sleep(0.02)
        job = api.get(f"/jobs/{job['job_id']}").json()
    return job


def emptied(settings: Settings) -> None:
    """No archive is left, once the runner has come to removing it."""
    deadline = time.monotonic() + 10
    while list((settings.data_dir / "jobs").iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def entries(api: TestClient, job: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.get(f"/jobs/{job['job_id']}/entries", params={"limit": 1_000}).json()["entries"]
    return found


def kind(answer: Any) -> str:
    found: str = answer.json()["type"].rpartition(":")[2]
    return found


@pytest.fixture
def machine(api: TestClient) -> TestClient:
    api.put("/machines/fan-1")
    return api


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Batches of one clip, each of which waits until the event is set."""
    go = threading.Event()

    prepare = archives.prepare_clips

    def prepare_when_set(*arguments: Any, **named: Any) -> Any:
        assert go.wait(60)
        return prepare(*arguments, **named)

    monkeypatch.setattr(archives, "_BATCH", 1)
    monkeypatch.setattr(archives, "prepare_clips", prepare_when_set)
    yield go
    go.set()


def test_an_archive_becomes_a_job_that_reports_each_entry(machine: TestClient, fan: Fan, settings: Settings) -> None:
    files = {f"clips/{number}.wav": fan(number, seconds=1.0) for number in range(40)}
    files |= {"notes.txt": b"no audio", "again.wav": fan(0, seconds=1.0), "__MACOSX/x": b"junk"}
    answer = post(machine, packed(files), domain="target")
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")
    assert answer.headers["Location"] == f"/jobs/{answer.json()['job_id']}"
    job = ended(machine, answer.json())
    assert (job["state"], job["total"], job["done"]) == ("done", 42, 42)
    assert job["entries"] == {"enrolled": 40, "duplicate": 1, "refused": 1}
    found = entries(machine, job)
    assert [entry["number"] for entry in found] == list(range(42))
    assert [entry["name"] for entry in found[:2]] == ["0.wav", "1.wav"]
    assert (found[40]["name"], found[40]["status"], found[40]["problem"]) == (
        "notes.txt",
        "refused",
        "undecodable-audio",
    )
    assert (found[41]["status"], found[41]["clip_id"]) == ("duplicate", found[0]["clip_id"])
    assert machine.get("/machines/fan-1").json()["clips"] == {"source": 0, "target": 40}
    emptied(settings)
    assert 'offkey_jobs{state="done"} 1.0' in machine.get("/metrics").text


def test_the_clips_of_an_archive_are_guarded_as_others_are(full_api: TestClient, fan: Fan) -> None:
    data = packed({"good.wav": fan(30), "bad.wav": fan(31, severity=1.0)})
    job = ended(full_api, post(full_api, data).json())
    assert [entry["status"] for entry in entries(full_api, job)] == ["enrolled", "held-back"]
    assert "sounds anomalous" in entries(full_api, job)[1]["detail"]
    job = ended(full_api, post(full_api, data, force="true").json())
    assert [entry["status"] for entry in entries(full_api, job)] == ["duplicate", "enrolled"]


def test_what_is_wrong_with_the_whole_is_reported_at_once(machine: TestClient, settings: Settings, fan: Fan) -> None:
    whole = packed({"a.wav": fan(0)})
    for data, status, problem in (
        (b"", 422, "unreadable-archive"),
        (b"no archive", 422, "unreadable-archive"),
        (whole[:-30], 422, "unreadable-archive"),
        (packed({"folder/": b""}), 422, "unreadable-archive"),
        (packed({f"{number}": b"" for number in range(10_001)}), 413, "too-many-clips"),
    ):
        answer = post(machine, data)
        assert (answer.status_code, kind(answer)) == (status, problem)
    assert kind(post(machine, whole, machine_id="ghost")) == "unknown-machine"
    assert kind(machine.post("/enroll", content=whole, headers=ZIP)) == "malformed-request"
    assert machine.get("/jobs").json() == {"jobs": [], "next_before": None}
    assert list((settings.data_dir / "jobs").iterdir()) == []
    # An archive is only taken where it makes sense.
    assert kind(machine.post("/noise", params=FAN, content=whole, headers=ZIP)) == "undecodable-audio"


def test_an_archive_may_be_larger_than_a_body_and_has_a_limit_of_its_own(settings: Settings, fan: Fan) -> None:
    with in_process(settings, max_body_bytes=100_000, max_zip_bytes=400_000) as api:
        api.put("/machines/fan-1")
        data = packed({f"{number}.wav": fan(number) for number in range(3)})
        assert 100_000 < len(data) < 400_000
        assert ended(api, post(api, data).json())["entries"] == {"enrolled": 3}
        answer = post(api, data + bytes(400_000))
        assert (answer.status_code, answer.json()["max_body_bytes"]) == (413, 400_000)
        assert api.post("/score", params=FAN, content=data, headers=ZIP).status_code == 413
        emptied(settings)


def test_a_request_sent_again_is_the_same_job(machine: TestClient, fan: Fan, settings: Settings) -> None:
    headers = {**ZIP, "Idempotency-Key": "k1"}
    data = packed({"a.wav": fan(0)})
    first, second = (machine.post("/enroll", params=FAN, content=data, headers=headers) for _ in range(2))
    assert first.json()["job_id"] == second.json()["job_id"]
    assert len(machine.get("/jobs").json()["jobs"]) == 1
    other = machine.post("/enroll", params={**FAN, "domain": "target"}, content=data, headers=headers)
    assert kind(other) == "idempotency-key-reused"
    ended(machine, first.json())
    emptied(settings)


def test_a_canceled_job_keeps_what_it_did_and_does_no_more(
    machine: TestClient, fan: Fan, held: threading.Event, settings: Settings
) -> None:
    data = packed({f"{number}.wav": fan(number, seconds=1.0) for number in range(5)})
    running, waiting = post(machine, data).json(), post(machine, data).json()
    while machine.get(f"/jobs/{running['job_id']}").json()["state"] != "running":
        time.sleep(0.01)
    assert machine.delete(f"/jobs/{waiting['job_id']}").json()["state"] == "canceled"
    assert machine.delete(f"/jobs/{running['job_id']}").json()["state"] == "canceled"
    held.set()
    time.sleep(0.5)
    assert machine.get("/machines/fan-1").json()["clips"]["source"] == 0
    assert kind(machine.delete(f"/jobs/{running['job_id']}")) == "job-over"
    assert kind(machine.delete("/jobs/99")) == kind(machine.get("/jobs/99")) == "unknown-job"
    emptied(settings)
    assert ended(machine, post(machine, data).json())["entries"] == {"enrolled": 5}  # the next one is done


def test_a_job_goes_on_when_the_service_is_started_again(settings: Settings, fan: Fan, held: threading.Event) -> None:
    with in_process(settings) as api:
        api.put("/machines/fan-1")
        job = post(api, packed({f"{number}.wav": fan(number, seconds=1.0) for number in range(5)})).json()
        while api.get(f"/jobs/{job['job_id']}").json()["state"] != "running":
            time.sleep(0.01)
        threading.Timer(0.2, held.set).start()
    (settings.data_dir / "jobs" / "left-by-a-client-that-left.zip").touch()
    with in_process(settings) as api:
        job = ended(api, api.get(f"/jobs/{job['job_id']}").json())
        assert (job["state"], job["done"], job["entries"]) == ("done", 5, {"enrolled": 5})
        assert len({entry["clip_id"] for entry in entries(api, job)}) == 5
        emptied(settings)


def test_a_machine_that_is_deleted_meanwhile_fails_its_job(
    machine: TestClient, fan: Fan, held: threading.Event
) -> None:
    job = post(machine, packed({f"{number}.wav": fan(number, seconds=1.0) for number in range(3)})).json()
    machine.delete("/machines/fan-1")
    machine.put("/machines/fan-1")  # is another one
    held.set()
    job = ended(machine, job)
    assert (job["state"], job["problem"]) == ("failed", "unknown-machine")
    assert machine.get("/machines/fan-1").json()["clips"]["source"] == 0


def test_so_many_jobs_wait_and_no_more(
    machine: TestClient, fan: Fan, held: threading.Event, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    monkeypatch.setattr("service.store.jobs.MAX_UNFINISHED_JOBS", 2)
    data = packed({"a.wav": fan(0, seconds=1.0)})
    taken = [post(machine, data) for _ in range(2)]
    answer = post(machine, data)
    assert (answer.status_code, kind(answer), answer.headers["Retry-After"]) == (503, "overloaded", "60")
    assert len(list((settings.data_dir / "jobs").iterdir())) == 2
    held.set()
    assert [ended(machine, one.json())["state"] for one in taken] == ["done", "done"]


def test_old_jobs_are_deleted(machine: TestClient, fan: Fan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.store.jobs.MAX_FINISHED_JOBS", 2)
    for number in range(4):
        ended(machine, post(machine, packed({"a.wav": fan(number, seconds=1.0)})).json())
    assert [job["job_id"] for job in machine.get("/jobs").json()["jobs"]] == [4, 3, 2]
    page = machine.get("/jobs", params={"limit": 2}).json()
    assert machine.get("/jobs", params={"before": page["next_before"]}).json()["jobs"][0]["job_id"] == 2


def test_who_sees_which_jobs(machine: TestClient, fan: Fan) -> None:
    def make(name: str, scope: str, **more: str) -> dict[str, str]:
        answer = machine.post("/keys", json={"name": name, "scopes": [scope], **more}, headers=keys.get("ops"))
        return {"Authorization": f"Bearer {answer.json()['key']}"}

    keys: dict[str, dict[str, str]] = {}
    keys["ops"] = make("ops", "admin")
    keys |= {"line": make("line", "enroll"), "other": make("other", "enroll", machine_prefix="other")}
    data = packed({"a.wav": fan(0)})
    answer = machine.post("/enroll", params=FAN, content=data, headers={**ZIP, **keys["line"]})
    job_id = answer.json()["job_id"]
    snapshot = machine.post("/snapshots", headers=keys["ops"]).json()["job_id"]

    def seen(who: str) -> set[int]:
        return {job["job_id"] for job in machine.get("/jobs", headers=keys[who]).json()["jobs"]}

    assert (seen("ops"), seen("line"), seen("other")) == ({job_id, snapshot}, {job_id}, set())
    for path in (f"/jobs/{job_id}", f"/jobs/{job_id}/entries"):
        assert machine.get(path, headers=keys["other"]).status_code == 404
    assert machine.delete(f"/jobs/{job_id}", headers=keys["other"]).status_code == 404
    assert machine.delete(f"/jobs/{snapshot}", headers=keys["line"]).status_code == 404
    assert machine.get(f"/jobs/{job_id}", headers=keys["line"]).json()["who"] == "line"
    while machine.get(f"/jobs/{job_id}", headers=keys["ops"]).json()["state"] != "done":
        time.sleep(0.02)
    changes = machine.get("/audit", headers=keys["ops"]).json()["entries"]
    assert [entry["who"] for entry in changes if entry["action"] == "enroll"] == ["line"]
    refused = machine.post("/enroll", params=FAN, content=data, headers={**ZIP, **keys["other"]})
    assert refused.status_code == 403


def test_a_snapshot_is_made_listed_fetched_restored_and_deleted(
    fan_api: TestClient, fan: Fan, tmp_path: Path, settings: Settings
) -> None:
    job = ended(fan_api, fan_api.post("/snapshots").json())
    assert job["state"] == "done"
    (kept,) = fan_api.get("/snapshots").json()["snapshots"]
    assert kept["name"] == job["result"]
    fetched = fan_api.get(f"/snapshots/{kept['name']}")
    assert len(fetched.content) == kept["bytes"] == int(fetched.headers["Content-Length"])
    (tmp_path / "s.tar").write_bytes(fetched.content)
    assert unpack(tmp_path / "s.tar", tmp_path / "database").clips == 5
    right = fan_api.post("/score", params=FAN, content=fan(9)).json()["clips"]
    restore(tmp_path / "s.tar", tmp_path / "elsewhere", replace=False)
    with in_process(settings, data_dir=tmp_path / "elsewhere") as other:
        assert other.post("/score", params=FAN, content=fan(9)).json()["clips"] == right
        (own,) = other.get("/jobs").json()["jobs"]
        assert (own["state"], own["detail"]) == ("canceled", "It was not finished when the snapshot was written.")
        assert other.get("/snapshots").json() == {"snapshots": []}
    assert fan_api.delete(f"/snapshots/{kept['name']}").status_code == 204
    for name in (kept["name"], "..%2foffkey.sqlite3", "offkey.sqlite3", "20260101T000000Z-1.tar%00", "x"):
        for method in ("GET", "DELETE"):
            assert fan_api.request(method, f"/snapshots/{name}").status_code == 404


def test_so_many_snapshots_are_kept(fan_api: TestClient, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    monkeypatch.setattr("service.jobs.snapshots.MAX_SNAPSHOTS", 1)
    ended(fan_api, fan_api.post("/snapshots").json())
    answer = fan_api.post("/snapshots")
    assert (answer.status_code, kind(answer)) == (409, "too-many-snapshots")
    assert [path.suffix for path in (settings.data_dir / "snapshots").iterdir()] == [".tar"]


def test_a_damaged_store_gives_a_failed_job_and_no_snapshot(fan_api: TestClient, settings: Settings) -> None:
    with fan_api.app.state.service.store._database.write() as connection:
        connection.exec_driver_sql("UPDATE embedding SET vector = zeroblob(8192) WHERE clip_id = 2")
    job = ended(fan_api, fan_api.post("/snapshots").json())
    assert (job["state"], job["problem"]) == ("failed", "store-unusable")
    assert "machine fan-1" in job["detail"]
    assert list((settings.data_dir / "snapshots").iterdir()) == []


def test_machines_are_moved_and_reported_one_by_one(
    settings: Settings, mirrored_bundle: Path, fan: Fan, monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_process(settings) as api:
        for name in ("a", "b", "c"):
            api.put(f"/machines/{name}")
            files = [("clips", (f"{number}.wav", fan(number))) for number in range(3)]
            api.post("/enroll", params={"machine_id": name}, files=files)
        with api.app.state.service.store._database.write() as connection:
            connection.exec_driver_sql("DELETE FROM audio WHERE clip_id = 4")
        before = api.post("/score", params={"machine_id": "a"}, content=fan(9)).json()["clips"][0]["anomaly_score"]
    both = settings.model_copy(update={"bundle": mirrored_bundle, "old_bundle": settings.bundle})
    monkeypatch.setattr("service.jobs.reembed._PAGE", 1)
    with in_process(both) as api:
        assert [(one["bundle"], one["current"], one["machines"]) for one in api.get("/models").json()["models"]] == [
            ("offkey-mirrored/1", True, 0),
            ("offkey-small/4", False, 3),
        ]
        job = ended(api, api.post("/reembed", params={"machine_id": "c"}).json())
        assert (job["state"], job["machine_id"], job["entries"]) == ("done", "c", {"moved": 1})
        job = ended(api, api.post("/reembed").json())
        assert (job["state"], job["total"], job["entries"]) == ("done", 2, {"moved": 1, "refused": 1})
        moved, refused = entries(api, job)
        assert (moved["name"], refused["name"], refused["problem"]) == ("a", "b", "audio-not-kept")
        assert [one["clips_without_audio"] for one in api.get("/models").json()["models"]] == [0, 1]
        for name in ("a", "b"):
            found = api.post("/score", params={"machine_id": name}, content=fan(9)).json()
            assert found["clips"][0]["anomaly_score"] == pytest.approx(before, abs=1e-5)
        assert ended(api, api.post("/reembed").json())["entries"] == {"refused": 1}
        assert kind(api.post("/reembed", params={"machine_id": "ghost"})) == "unknown-machine"
    with in_process(both, old_bundle=None) as api:
        last = api.get("/models").json()["models"][-1]
        assert (last["bundle"], last["serves"], last["machines"]) == (None, False, 1)
