"""Two bundles: the old one serves the banks that it made until they are moved to the new one."""

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from launch import in_process
from service.encoder.encoder import Embedding
from service.encoder.encoders import Encoders
from service.jobs import reembed
from service.settings import Settings
from service.store import MachineRecord, Store
from service.store.database.sqlite import DATABASE_FILE
from service.store.snapshot.check import check_database
from service.usecases.clip import EmbeddedClip

Fan = Callable[..., bytes]
FAN = {"machine_id": "fan-1"}


@pytest.fixture
def both(settings: Settings, mirrored_bundle: Path) -> Settings:
    """The mirrored bundle is new, the one that ships is old."""
    return settings.model_copy(update={"bundle": mirrored_bundle, "old_bundle": settings.bundle})


def enroll(api: TestClient, fan: Fan, numbers: range, machine_id: str = "fan-1") -> dict[str, object]:
    api.put(f"/machines/{machine_id}")
    files = [("clips", (f"{number}.wav", fan(number))) for number in numbers]
    answer = api.post("/enroll", params={"machine_id": machine_id}, files=files)
    assert answer.status_code in (200, 201), answer.text
    return dict(answer.json())


def score(api: TestClient, clip: bytes, machine_id: str = "fan-1") -> dict[str, object]:
    answer = api.post("/score", params={"machine_id": machine_id}, content=clip)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def value(scores: dict[str, object]) -> float:
    (clip,) = scores["clips"]
    return float(clip["anomaly_score"])


@pytest.fixture
def before(settings: Settings, fan: Fan) -> float:
    """A service with one bundle made a bank of five clips and ended. The score of a sixth clip."""
    with in_process(settings) as api:
        enroll(api, fan, range(5))
        return value(score(api, fan(9)))


def encoders_of(api: TestClient) -> Encoders:
    encoders: Encoders = api.app.state.service.encoders
    return encoders


def move(api: TestClient, machine_id: str = "fan-1") -> dict[str, Any]:
    """Move a machine to the new bundle. Returns the entry of the job about it."""
    job = api.post("/reembed", params={"machine_id": machine_id}).json()
    deadline = time.monotonic() + 60
    while job["state"] in ("queued", "running"):
        assert time.monotonic() < deadline, job
        time.sleep(0.01)
        job = api.get(f"/jobs/{job['job_id']}").json()
    assert job["state"] == "done", job
    (entry,) = api.get(f"/jobs/{job['job_id']}/entries").json()["entries"]
    assert entry["name"] == machine_id
    return dict(entry)


def count_embedded(monkeypatch: pytest.MonkeyPatch, then: Callable[[int], None] = lambda count: None) -> list[int]:
    """Return a list that grows by one with each clip that a move embeds. `then` is called with its length."""
    embed, counted = reembed.embed_clip, list[int]()

    def embed_and_count(*arguments: Any) -> EmbeddedClip:
        embedded = embed(*arguments)
        counted.append(len(counted))
        then(len(counted))
        return embedded

    monkeypatch.setattr(reembed, "embed_clip", embed_and_count)
    return counted


def test_old_banks_are_served_by_the_bundle_that_made_them(both: Settings, before: float, fan: Fan) -> None:
    with in_process(both) as api:
        assert (api.get("/info").json()["bundle"], api.get("/info").json()["old_bundle"]) == (
            "offkey-mirrored/1",
            "offkey-small/4",
        )
        old = score(api, fan(9))
        assert (old["bundle"], value(old)) == ("offkey-small/4", pytest.approx(before, abs=1e-5))
        enroll(api, fan, range(5, 8))  # goes to the old space as well
        assert api.get("/machines/fan-1").json()["embedding_space_id"].startswith("offkey-small/4-")
        assert api.get("/machines/fan-1").json()["threshold"] is not None
        assert api.post("/feedback", params=FAN, content=fan(10)).status_code == 200
        assert api.post("/noise", params=FAN, content=fan(11)).status_code == 200
        enroll(api, fan, range(5), "fan-2")
        assert api.get("/machines/fan-2").json()["embedding_space_id"].startswith("offkey-mirrored/1-")
        new = score(api, fan(9), "fan-2")
        assert (new["bundle"], value(new)) == ("offkey-mirrored/1", pytest.approx(before, abs=1e-5))


def test_without_the_old_bundle_the_bank_is_not_searched(
    settings: Settings, both: Settings, before: float, fan: Fan
) -> None:
    with in_process(both, old_bundle=None) as api:
        for path in ("/score", "/enroll", "/feedback", "/noise"):
            answer = api.post(path, params=FAN, content=fan(9))
            assert answer.status_code == 409, path
            assert answer.json()["type"].endswith("embedding-space-mismatch")
            assert "OFFKEY_OLD_BUNDLE" in answer.json()["detail"]
        assert api.get("/machines/fan-1").json()["threshold"] is None
        assert move(api)["status"] == "moved"  # moving needs the stored audio, not the old bundle
        assert value(score(api, fan(9))) == pytest.approx(before, abs=1e-5)


def test_a_machine_moves_with_all_its_data(
    both: Settings, before: float, fan: Fan, monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_process(both) as api:
        api.post("/noise", params=FAN, content=fan(40))
        old, clips = score(api, fan(9)), api.get("/machines/fan-1/clips").json()
        generation = api.get("/machines/fan-1").json()["generation"]
        embedded = count_embedded(monkeypatch)
        assert move(api)["status"] == "moved"
        assert len(embedded) == 6  # five clips and the noise
        moved = api.get("/machines/fan-1").json()
        assert moved["generation"] == generation + 1
        assert moved["embedding_space_id"].startswith("offkey-mirrored/1-")
        new = score(api, fan(9))
        assert new["bundle"] == "offkey-mirrored/1"
        assert value(new) == pytest.approx(value(old), abs=1e-5)
        assert new["clips"][0]["windows"][0]["localization"] == old["clips"][0]["windows"][0]["localization"]
        assert api.get("/machines/fan-1/clips").json() == clips
        assert [entry["action"] for entry in api.get("/audit").json()["entries"]][:1] == ["reembed"]
        assert move(api)["status"] == "unchanged"
        assert len(embedded) == 6
        hum = api.post("/score", params=FAN, content=fan(40)).json()["clips"][0]
        assert "machine-not-audible" in [one["kind"] for one in hum["warnings"]]
    assert check_database(both.data_dir / DATABASE_FILE).damage == ()
    with in_process(both, old_bundle=None) as api:
        assert value(score(api, fan(9))) == pytest.approx(before, abs=1e-5)


def test_what_is_enrolled_and_deleted_meanwhile_moves_along(
    both: Settings, before: float, fan: Fan, monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_process(both) as api:

        def meanwhile(count: int) -> None:
            if count == 3:
                assert score(api, fan(9))["bundle"] == "offkey-small/4"
                enroll(api, fan, range(5, 7))
                first = api.get("/machines/fan-1/clips").json()["clips"][0]["clip_id"]
                assert api.delete(f"/machines/fan-1/clips/{first}").status_code == 200

        embedded = count_embedded(monkeypatch, meanwhile)
        assert move(api)["status"] == "moved"
        assert len(embedded) == 7  # no clip was embedded twice
        listed = [clip["name"] for clip in api.get("/machines/fan-1/clips").json()["clips"]]
        assert listed == [f"{number}.wav" for number in range(1, 7)]
        moved = value(score(api, fan(9)))
        enroll(api, fan, range(1, 7), "fan-2")
        assert value(score(api, fan(9), "fan-2")) == pytest.approx(moved, abs=1e-5)


def test_a_request_that_is_under_way_while_the_machine_moves_is_answered_right(
    both: Settings, before: float, fan: Fan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old encoder has embedded the clip when the bank moves to the new space."""
    with in_process(both) as api:
        old = encoders_of(api).old
        assert old is not None
        embed, moves = old.embed, []

        def embed_while_it_moves(*arguments: Any) -> Embedding:
            embedding = embed(*arguments)
            if not moves:
                moves.append(move(api)["status"])
            return embedding

        monkeypatch.setattr(old, "embed", embed_while_it_moves)
        enroll(api, fan, range(5, 6))
        assert moves == ["moved"]
        assert api.get("/machines/fan-1").json()["clips"]["source"] == 6
        enroll(api, fan, range(6), "fan-2")
        assert value(score(api, fan(9))) == pytest.approx(value(score(api, fan(9), "fan-2")), abs=1e-5)


def test_a_score_whose_bank_moves_between_two_reads_is_of_one_space(
    both: Settings, before: float, fan: Fan, monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_process(both) as api:
        machine, moves = Store.machine, []

        def machine_that_moves(self: Store, machine_id: str) -> MachineRecord:
            found = machine(self, machine_id)
            if not moves:
                moves.append("begun")  # the move reads the machine as well
                moves.append(move(api)["status"])
            return found

        monkeypatch.setattr(Store, "machine", machine_that_moves)
        answer = score(api, fan(9))
        assert moves == ["begun", "moved"]
        assert (answer["bundle"], value(answer)) == ("offkey-mirrored/1", pytest.approx(before, abs=1e-5))


def test_clips_whose_audio_was_not_kept_keep_the_machine_where_it_is(
    settings: Settings, both: Settings, fan: Fan
) -> None:
    with in_process(settings, keep_audio=False) as api:
        enroll(api, fan, range(3))
    with in_process(both) as api:
        enroll(api, fan, range(3, 5))
        refused = move(api)
        assert (refused["status"], refused["problem"]) == ("refused", "audio-not-kept")
        assert "3 of the 5 clips of machine fan-1 was not stored (0.wav is the first)" in refused["detail"]
        old = score(api, fan(9))
        assert old["bundle"] == "offkey-small/4"
        again = enroll(api, fan, range(5))
        assert {clip["status"] for clip in again["clips"]} == {"duplicate"}
        assert again["generation"] == old["generation"]
        assert move(api)["status"] == "moved"
        assert value(score(api, fan(9))) == pytest.approx(value(old), abs=1e-5)


def test_a_damaged_file_is_not_embedded(both: Settings, before: float, fan: Fan) -> None:
    with closing(sqlite3.connect(both.data_dir / DATABASE_FILE)) as raw, raw:
        raw.execute("UPDATE audio SET file = zeroblob(length(file)) WHERE clip_id = 3")
    (damage,) = check_database(both.data_dir / DATABASE_FILE).damage
    assert (damage.machine_id, damage.what) == ("fan-1", "the audio of clip 3 does not match its sha256")
    with in_process(both) as api:
        refused = move(api)
        assert (refused["status"], refused["problem"]) == ("refused", "machine-damaged")
        assert "audio of clip 3" in refused["detail"]
        assert score(api, fan(9))["bundle"] == "offkey-small/4"


def test_audio_goes_with_its_clip(settings: Settings, fan: Fan) -> None:
    def files() -> int:
        with closing(sqlite3.connect(settings.data_dir / DATABASE_FILE)) as raw:
            return int(raw.execute("SELECT count(*) FROM audio").fetchone()[0])

    with in_process(settings) as api:
        enroll(api, fan, range(3))
        assert files() == 3
        first = api.get("/machines/fan-1/clips").json()["clips"][0]["clip_id"]
        api.delete(f"/machines/fan-1/clips/{first}")
        assert files() == 2
        api.delete("/machines/fan-1")
        assert files() == 0


def test_a_bank_of_a_version_without_variants_gets_them_by_a_move_to_its_own_bundle(
    settings: Settings, fan: Fan
) -> None:
    with in_process(settings) as api:
        enroll(api, fan, range(5))
        expected = value(score(api, fan(9)))
    with closing(sqlite3.connect(settings.data_dir / DATABASE_FILE)) as raw, raw:
        for table in ("piece", "slices"):
            assert raw.execute(f"DELETE FROM {table}").rowcount > 0
    with in_process(settings) as api:
        lacking = score(api, fan(9))
        assert any("offkey reembed" in line for line in lacking["threshold"]["warnings"])
        assert value(lacking) != pytest.approx(expected, abs=1e-3)
        assert move(api)["status"] == "moved"
        again = score(api, fan(9))
        assert not any("offkey reembed" in line for line in again["threshold"]["warnings"])
        assert value(again) == pytest.approx(expected, abs=1e-3)
        assert move(api)["status"] == "unchanged"
