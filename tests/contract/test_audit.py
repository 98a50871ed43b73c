"""Who changed what is written with the change, or neither is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from offkey.errors import OffkeyError
from offkey.vocabulary import Scope
from service.domain.access import Caller
from service.store import Store
from service.store import audit as audit_module

Fan = Callable[..., bytes]


def entries(api: TestClient, key: str | None = None) -> list[dict[str, Any]]:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    found: list[dict[str, Any]] = api.get("/audit", headers=headers).json()["entries"]
    return found


def test_every_change_is_written_down_with_who_made_it(api: TestClient, fan: Fan) -> None:
    api.put("/machines/fan-1")
    made = api.post("/keys", json={"name": "ops", "scopes": ["admin"]}).json()
    key = {"Authorization": f"Bearer {made['key']}"}
    enrolled = api.post(
        "/enroll",
        params={"machine_id": "fan-1"},
        headers=key,
        files=[("clips", (f"{n}.wav", fan(n))) for n in range(5)],
    )
    clip_id = enrolled.json()["clips"][0]["clip_id"]
    for call in (
        lambda: api.post("/enroll?machine_id=fan-1", content=fan(0), headers=key),  # duplicate, no change
        lambda: api.post("/score?machine_id=fan-1", content=fan(0), headers=key),  # no change
        lambda: api.post("/enroll?machine_id=fan-1&force=true", content=fan(6), headers=key),
        lambda: api.post("/feedback?machine_id=fan-1", content=fan(7), headers=key),
        lambda: api.put("/machines/fan-1/threshold", json={"false_alarm_rate": 0.2}, headers=key),
        lambda: api.delete("/machines/fan-1/threshold", headers=key),
        lambda: api.delete(f"/machines/fan-1/clips/{clip_id}", headers=key),
        lambda: api.put("/machines/fan-1", json={"description": "moved"}, headers=key),
        lambda: api.delete("/machines/fan-1", headers=key),
        lambda: api.delete("/machines/ghost", headers=key),  # unknown, no change
    ):
        last = call()
    assert last.status_code == 404
    api.delete(f"/keys/{made['key_id']}", headers=key)
    with api.app.state.service.store.begin() as tx:
        _, other = tx.create_key("a", [Scope.ADMIN], machine_prefix=None, rate_per_minute=None)

    found = entries(api, other.text)
    changes = [(entry["who"], entry["action"], entry["machine_id"], entry["detail"]) for entry in reversed(found)]
    assert changes[:-1] == [
        ("anonymous", "create-machine", "fan-1", ""),
        ("anonymous", "create-key", None, f"{made['key_id']} ops: admin"),
        ("ops", "enroll", "fan-1", f"5 source clips from id {clip_id}, generation 1"),
        ("ops", "force-enroll", "fan-1", f"1 source clips from id {clip_id + 5}, generation 2"),
        ("ops", "feedback", "fan-1", f"1 source clips from id {clip_id + 6}, generation 3"),
        ("ops", "change-threshold", "fan-1", "conformal 0.2"),
        ("ops", "change-threshold", "fan-1", "conformal"),
        ("ops", "delete-clip", "fan-1", f"clip {clip_id}"),
        ("ops", "describe-machine", "fan-1", ""),
        ("ops", "delete-machine", "fan-1", "6 clips"),
        ("ops", "revoke-key", None, f"{made['key_id']} ops"),
    ]
    assert changes[-1][:2] == ("command line", "create-key")
    assert all(entry["key_id"] == made["key_id"] for entry in found if entry["who"] == "ops")
    (of_enrollment,) = [entry for entry in found if entry["action"] == "enroll"]
    assert of_enrollment["request_id"] == enrolled.headers["X-Request-ID"]
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "keys.md").read_text()
    assert all(f"`{action}`" in page for action in audit_module.Action)


def test_neither_is_there_without_the_other(api: TestClient, fan: Fan, monkeypatch: pytest.MonkeyPatch) -> None:
    api.put("/machines/fan-1")
    api.post("/enroll?machine_id=fan-1", content=fan(0))
    before, log = api.get("/machines/fan-1").json(), entries(api)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the disk is gone")

    monkeypatch.setattr("service.store.transaction.record", fail)
    clip_id = api.get("/machines/fan-1/clips").json()["clips"][0]["clip_id"]
    for answer in (
        api.put("/machines/fan-1", json={"description": "moved"}),
        api.put("/machines/fan-2"),
        api.put("/machines/fan-1/threshold", json={"false_alarm_rate": 0.2}),
        api.post("/enroll?machine_id=fan-1", content=fan(1)),
        api.delete(f"/machines/fan-1/clips/{clip_id}"),
        api.delete("/machines/fan-1"),
        api.post("/keys", json={"name": "ops", "scopes": ["admin"]}),
    ):
        assert answer.status_code == 500
    monkeypatch.undo()
    assert api.get("/machines/fan-1").json() == before
    assert api.get("/machines/fan-2").status_code == 404
    assert api.get("/keys").json()["keys"] == []

    monkeypatch.setattr("service.store.idempotency.store_response", fail)  # after the entry
    once = {"Idempotency-Key": "once"}
    assert api.post("/enroll?machine_id=fan-1", content=fan(1), headers=once).status_code == 500
    assert entries(api) == log


def test_the_log_is_paged_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "MAX_AUDIT_ENTRIES", 5)
    store = Store.open(tmp_path)
    theirs = store.by(Caller("ops", key_id="0" * 12, request_id="r"))
    for number in range(8):
        with theirs.begin() as tx:
            tx.put_machine(f"m{number}", "")
    first = store.audit(before=2**63 - 1, limit=3)
    assert [entry.machine_id for entry in first] == ["m7", "m6", "m5"]
    assert [entry.machine_id for entry in store.audit(before=first[-1].audit_id, limit=3)] == ["m4", "m3"]
    with pytest.raises(OffkeyError), theirs.begin("ghost") as tx:
        tx.delete_machine()
    store.close()


def test_pages_go_on_where_the_last_one_ended(api: TestClient) -> None:
    for number in range(5):
        api.put(f"/machines/m{number}")
    seen, before = [], ""
    while True:
        page = api.get(f"/audit?limit=2{before}").json()
        seen += [entry["machine_id"] for entry in page["entries"]]
        if page["next_before"] is None:
            break
        before = f"&before={page['next_before']}"
    assert seen == ["m4", "m3", "m2", "m1", "m0"]
