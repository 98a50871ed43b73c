"""A store that the previous schema wrote opens, and answers as before.

`tests/data/store-0011.tar.gz` is a snapshot (`offkey snapshot`, gzipped) of a store of schema 0011, written by the code
of commit 2b1c191: machines fan-1 (20 source clips, 4 target clips of one recording, noise) and fan-2 (3 clips, one more
from an archive, manual threshold), and a deleted machine. `tests/data/store-0011.json` holds the answers of that code
about three synthetic clips, and the text of the store's only key. Scores are on another scale since schema 0013, and
the bundle of the store ships no more. So the store is served by the present bundle under the old embedding space, and
scores and neighbors are compared with those of a detector that is fitted to the rows before the migration.
"""

import gzip
import io
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fastapi.testclient import TestClient

from offkey.vocabulary import Domain
from service.app import create_app
from service.domain.detector import Detector
from service.domain.distance import nearest_rows
from service.domain.threshold import conformal_threshold, manual_threshold
from service.encoder.bundle import MANIFEST_FILE, load_manifest
from service.settings import Settings
from service.store.database.sqlite import DATABASE_FILE
from service.synthetic import MACHINES
from service.usecases.service import Service

DATA = Path(__file__).parents[1] / "data"
EXPECTED = json.loads((DATA / "store-0011.json").read_text())
SPACE = "offkey-small/2-83f9e357a3fd"
PROBES = {100: 0.0, 101: 0.0, 102: 1.0}  # severity by number of the clip


@dataclass(frozen=True)
class Migrated:
    """The service on the migrated store, and the rows of the store before the migration."""

    api: TestClient
    before: Callable[[str], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("old") / "store-0011.tar"
    path.write_bytes(gzip.decompress((DATA / "store-0011.tar.gz").read_bytes()))
    return path


@pytest.fixture
def migrated(snapshot: Path, settings: Settings, tmp_path: Path, offkey: Callable[..., Any]) -> Iterator[Migrated]:
    restored = offkey("restore", snapshot, "--data-dir", settings.data_dir)
    assert restored.returncode == 0, restored.stderr
    with closing(sqlite3.connect(settings.data_dir / DATABASE_FILE)) as raw, raw:
        assert raw.execute("SELECT version_num FROM alembic_version").fetchone() == ("0011",)
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        raw.execute("UPDATE answered SET answered_at = ?", (now,))  # stored responses expire after a day
        old = sqlite3.connect(tmp_path / "before.sqlite3")
        raw.commit()
        raw.backup(old)
    old.row_factory = sqlite3.Row

    def before(query: str) -> list[dict[str, Any]]:
        return [dict(row) for row in old.execute(query)]

    served = settings.model_copy(update={"bundle": bundle_of_space(settings.bundle, tmp_path, SPACE)})
    with closing(old), TestClient(create_app(Service.open(served))) as api:
        api.headers["Authorization"] = f"Bearer {EXPECTED['key']}"
        yield Migrated(api, before)


def bundle_of_space(bundle: Path, folder: Path, space: str) -> Path:
    """Copy a bundle under another embedding space."""
    copied = folder / "bundle" / "1"
    shutil.copytree(bundle, copied)
    manifest = load_manifest(copied).model_copy(update={"embedding_space_id": space})
    (copied / MANIFEST_FILE).write_text(manifest.model_dump_json())
    return copied


def got(api: TestClient, path: str, **params: object) -> Any:
    answer = api.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def moment(text: str | None) -> str | None:
    """Return a time of the database as answers write it."""
    return None if text is None else f"{text.replace(' ', 'T')}Z"


def test_the_snapshot_is_verified_and_restored(snapshot: Path, tmp_path: Path, offkey: Callable[..., Any]) -> None:
    for arguments in (("verify", snapshot), ("restore", snapshot, "--data-dir", tmp_path / "data")):
        found = offkey(*arguments)
        assert found.returncode == 0, found.stderr
        assert "2 machines, 28 clips" in found.stdout
    assert offkey("verify", tmp_path / "data").returncode == 0


def refitted(migrated: Migrated, machine: str) -> tuple[Detector, dict[Domain, np.ndarray]]:
    """Fit a detector to the embeddings of a machine before the migration. Returns it with the embeddings by domain."""
    rows = migrated.before(
        "SELECT clip.clip_id, domain, recording, vector FROM clip JOIN embedding ON embedding.clip_id = clip.clip_id "
        f"JOIN machine ON machine.machine_key = clip.machine_key WHERE machine_id = '{machine}' "
        'ORDER BY clip.clip_id, "window"'
    )
    banks, clips, recordings = {}, {}, {}
    for domain in Domain:
        own = [row for row in rows if row["domain"] == domain.value]
        if own:
            banks[domain] = np.stack([np.frombuffer(row["vector"], "<f4") for row in own])
            clips[domain] = np.array([row["clip_id"] for row in own])
            names = [row["recording"] or str(row["clip_id"]) for row in own]
            recordings[domain] = np.unique(names, return_inverse=True)[1]
    return Detector.fit(banks, clips, recordings), banks


def test_scores_thresholds_and_neighbors_are_the_same(migrated: Migrated, encode: Callable[..., bytes]) -> None:
    compared, encoder = 0, migrated.api.app.state.service.encoders.current
    detectors = {machine: refitted(migrated, machine) for machine in ("fan-1", "fan-2")}
    for number, severity in PROBES.items():
        samples = MACHINES["fan-synthetic"].clip(
            split="test", domain="source", number=number, severity=severity, seconds=3.0
        )
        clip = encode(samples, subtype="PCM_16")
        windows = encoder.embed(soundfile.read(io.BytesIO(clip), dtype="float32")[0]).vectors
        for machine in ("fan-1", "fan-2"):
            expected = EXPECTED["scores"][f"{machine}/{number}"]
            found = migrated.api.post("/score", params={"machine_id": machine, "neighbors": 3}, content=clip)
            assert found.status_code == 200, found.text
            answer = found.json()
            (score,) = answer["clips"]
            assert answer["generation"] == expected["generation"]
            detector, banks = detectors[machine]
            near = {domain: nearest_rows(windows, rows, 1) for domain, rows in banks.items()}
            right = detector.score(windows, near)
            threshold = manual_threshold(detector.self_scores, expected["decision_threshold"])
            if machine == "fan-1":
                threshold = conformal_threshold(detector.self_scores, 0.05)
            assert answer["threshold"]["decision_threshold"] == pytest.approx(threshold.value, abs=1e-4)
            assert score["decision_threshold"] == pytest.approx(threshold.of_clip(right.domains), abs=1e-4)
            assert score["is_anomalous"] is (right.score > threshold.of_clip(right.domains))
            assert score["anomaly_score"] == pytest.approx(right.score, abs=1e-4)
            assert [window["anomaly_score"] for window in score["windows"]] == pytest.approx(
                right.windows.tolist(), abs=1e-4
            )
            neighbors = score["windows"][0]["neighbors"]
            distances = np.sort(np.concatenate([1.0 - windows[:1] @ rows.T for rows in banks.values()], axis=1)[0])
            assert [near["distance"] for near in neighbors] == pytest.approx(distances[:3].tolist(), abs=1e-5)
            compared += 1
    assert compared == len(EXPECTED["scores"]) == 6


def test_the_key_is_still_needed_and_still_works(migrated: Migrated) -> None:
    (key,) = got(migrated.api, "/keys")["keys"]
    (row,) = migrated.before("SELECT * FROM api_key")
    assert (key["key_id"], key["name"], key["scopes"]) == (row["key_id"], row["name"], ["admin"])
    assert (key["created_at"], key["revoked_at"]) == (moment(row["created_at"]), None)
    del migrated.api.headers["Authorization"]
    assert migrated.api.get("/machines").status_code == 401


def test_machines_and_clips_are_the_same(migrated: Migrated) -> None:
    for row in migrated.before("SELECT * FROM machine"):
        machine = got(migrated.api, f"/machines/{row['machine_id']}")
        for name in ("description", "generation", "embedding_space_id"):
            assert machine[name] == row[name]
        assert machine["created_at"] == moment(row["created_at"])
        settings = machine["threshold_settings"]
        assert (settings["rule"], settings["decision_threshold"]) == (row["threshold_rule"], row["decision_threshold"])
        clips = got(migrated.api, f"/machines/{row['machine_id']}/clips", limit=1_000)["clips"]
        rows = migrated.before(f"SELECT * FROM clip WHERE machine_key = {row['machine_key']} ORDER BY clip_id")
        names = ("clip_id", "name", "domain", "recording", "seconds", "sample_rate", "channels")
        assert [[clip[name] for name in names] for clip in clips] == [[row[name] for name in names] for row in rows]
        assert all(clip["acoustics"] is not None for clip in clips)


def test_jobs_the_audit_log_and_noise_are_the_same(migrated: Migrated) -> None:
    (row,) = migrated.before("SELECT * FROM job")
    (job,) = got(migrated.api, "/jobs")["jobs"]
    assert job["entries"] == {"enrolled": 1, "refused": 1}
    for name in ("job_id", "kind", "state", "machine_id", "total", "done", "result", "problem", "detail", "who"):
        assert job[name] == row[name]
    for name in ("created_at", "started_at", "ended_at"):
        assert job[name] == moment(row[name])
    entries = got(migrated.api, f"/jobs/{job['job_id']}/entries")["entries"]
    old = migrated.before("SELECT number, name, status, clip_id, problem, detail FROM job_entry ORDER BY number")
    assert entries == old

    audit = got(migrated.api, "/audit", limit=1_000)["entries"]
    old = migrated.before("SELECT * FROM audit ORDER BY audit_id DESC")
    assert len(audit) == len(old) > 8
    assert audit == [{**{name: row[name] for name in audit[0]}, "at": moment(row["at"])} for row in old]

    (noise,) = got(migrated.api, "/machines/fan-1/noise")["noise"]
    (row,) = migrated.before("SELECT * FROM noise")
    assert [noise[name] for name in ("noise_id", "name", "seconds", "windows")] == [
        row[name] for name in ("noise_id", "name", "seconds", "windows")
    ]


def test_a_repeated_request_gets_the_response_of_before(migrated: Migrated, fan: Callable[..., bytes]) -> None:
    (stored,) = migrated.before("SELECT answer FROM answered")
    files = [("clips", (f"{number}.wav", fan(number), "audio/wav")) for number in range(20)]

    def enroll(machine: str) -> Any:
        return migrated.api.post(
            "/enroll", params={"machine_id": machine}, files=files, headers={"Idempotency-Key": "first"}
        )

    again = enroll("fan-1")
    assert again.status_code in (200, 201), again.text
    assert again.json() == json.loads(stored["answer"])
    assert again.json()["generation"] == 1  # the bank is at generation 3
    other = enroll("fan-2")
    assert (other.status_code, other.json()["type"]) == (422, "urn:offkey:problem:idempotency-key-reused")


def test_a_deleted_machine_continues_its_generation(migrated: Migrated) -> None:
    (gone,) = migrated.before("SELECT * FROM retired")
    assert migrated.api.get("/machines/gone").status_code == 404
    created = migrated.api.put("/machines/gone")
    assert created.status_code == 201
    assert created.json()["generation"] == gone["generation"] + 1 == 2


def test_the_migrated_store_takes_changes(migrated: Migrated, fan: Callable[..., bytes]) -> None:
    (last,) = migrated.before("SELECT max(clip_id) AS clip_id FROM clip")
    # Embeddings of two bundles are far apart, so the clip is forced.
    answer = migrated.api.post("/enroll", params={"machine_id": "fan-1", "force": True}, content=fan(40))
    assert answer.status_code == 201, answer.text
    assert answer.json()["generation"] == 4
    assert answer.json()["clips"][0]["clip_id"] > last["clip_id"]
    assert migrated.api.post("/score", params={"machine_id": "fan-1"}, content=fan(41)).json()["generation"] == 4
