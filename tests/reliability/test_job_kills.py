"""kill -9 while an archive is enrolled, machines are moved, snapshots are made: nothing lost, doubled or half done."""

import io
import os
import random
import signal
import sqlite3
import subprocess
import time
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

import httpx2
import pytest

from offkey.client import Client
from offkey.vocabulary import UNFINISHED, EntryStatus, JobState
from service.store.database.sqlite import DATABASE_FILE
from service.store.snapshot.check import check_database
from service.store.snapshot.write import unpack
from torture import scaled

KILLS = max(1, int(os.environ.get("OFFKEY_KILLS", scaled(1_000, 9))) // 3)
CLIPS = 40

Running = Callable[..., AbstractContextManager["tuple[subprocess.Popen[bytes], Client]"]]


def killed(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait(10)


def rows(data_dir: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(data_dir / DATABASE_FILE)) as raw:
        return raw.execute(query).fetchall()


@pytest.mark.timeout(1_200)
def test_an_archive_is_enrolled_once_and_whole_however_often_it_is_interrupted(
    running: Running, tmp_path: Path, fan: Callable[..., bytes]
) -> None:
    rng = random.Random(0)
    base = fan(0, seconds=1.0)
    kills = taken = 0
    acknowledged: dict[int, set[str]] = {}
    with running(tmp_path) as (_, client):
        client.put_machine("fan-1")
    while kills < KILLS:
        with running(tmp_path) as (process, client):
            if not any(job.state in UNFINISHED for job in client.jobs()):
                archive = io.BytesIO()
                names = {f"{taken}-{number}.wav" for number in range(CLIPS)}
                with zipfile.ZipFile(archive, "w") as packed:
                    for number, name in enumerate(sorted(names)):
                        packed.writestr(name, base[:-4] + (taken * CLIPS + number).to_bytes(4, "little"))
                    packed.writestr("notes.txt", "no audio")
                (tmp_path / "clips.zip").write_bytes(archive.getvalue())
                acknowledged[client.enroll_archive("fan-1", tmp_path / "clips.zip", force=True).job_id] = names
                taken += 1
            killed(process, rng.uniform(0.0, 0.4))
            kills += 1
        assert check_database(tmp_path / DATABASE_FILE).damage == ()
        # Whatever is enrolled is in the report and the other way around, also in the middle.
        enrolled = set(rows(tmp_path, "SELECT clip_id, name FROM clip"))
        assert enrolled == set(rows(tmp_path, "SELECT clip_id, name FROM job_entry WHERE status = 'enrolled'"))
    with running(tmp_path) as (_, client):
        for job_id, names in acknowledged.items():
            while client.job(job_id).state in UNFINISHED:
                time.sleep(0.05)
            job = client.job(job_id)
            assert (job.state, job.total, job.done) == (JobState.DONE, CLIPS + 1, CLIPS + 1)
            assert job.entries == {EntryStatus.ENROLLED: CLIPS, EntryStatus.REFUSED: 1}
            assert {one.name for one in client.job_entries(job_id)} == names | {"notes.txt"}
        assert client.machine("fan-1").clips.source == CLIPS * taken
        deadline = time.monotonic() + 10
        while list((tmp_path / "jobs").iterdir()):
            assert time.monotonic() < deadline, "an archive was left behind"
            time.sleep(0.05)


@pytest.mark.timeout(1_200)
def test_machines_are_in_one_space_or_the_other_however_often_the_move_is_interrupted(
    running: Running, tmp_path: Path, fan: Callable[..., bytes], bundle: Path, mirrored_bundle: Path
) -> None:
    rng = random.Random(1)
    clips = [tmp_path / f"{number}.wav" for number in range(6)]
    for number, path in enumerate(clips):
        path.write_bytes(fan(number, seconds=1.0))
    probe = tmp_path / "probe.wav"
    probe.write_bytes(fan(9, seconds=1.0))
    data = tmp_path / "data"
    machines = [f"fan-{number}" for number in range(8)]
    with running(data, bundle=bundle) as (_, client):
        for machine in machines:
            client.put_machine(machine)
            client.enroll(machine, clips)
        right = client.score(machines[0], [probe]).clips[0].anomaly_score
    # There and back again.
    sides = [(mirrored_bundle, bundle), (bundle, mirrored_bundle)]
    turn = kills = 0
    while kills < KILLS:
        new, old = sides[turn % 2]
        with running(data, bundle=new, old_bundle=old) as (process, client):
            for machine in rng.sample(machines, 3):
                assert client.score(machine, [probe]).clips[0].anomaly_score == pytest.approx(right, abs=1e-5)
            jobs = [job for job in client.jobs() if job.state in UNFINISHED]
            if not jobs:
                moved = {one.embedding_space_id for one in client.models() if one.machines}
                if len(moved) == 1 and client.models()[0].machines:  # all of them arrived
                    turn += 1
                    continue
                client.reembed()
            killed(process, rng.uniform(0.0, 0.5))
            kills += 1
        assert check_database(data / DATABASE_FILE).damage == ()
        reported = rows(data, "SELECT job_id, name, count(*) FROM job_entry GROUP BY job_id, name HAVING count(*) > 1")
        assert reported == []


@pytest.mark.timeout(1_200)
def test_snapshots_are_whole_or_not_there_however_often_they_are_interrupted(
    running: Running, tmp_path: Path, fill: Callable[..., None]
) -> None:
    rng = random.Random(2)
    fill(tmp_path, machines=20, clips=50, dim=512)
    for _ in range(KILLS):
        with running(tmp_path) as (process, client):
            for kept in httpx2.get(f"{client.url}/snapshots").json()["snapshots"]:
                httpx2.delete(f"{client.url}/snapshots/{kept['name']}")
            httpx2.post(f"{client.url}/snapshots")
            killed(process, rng.uniform(0.0, 0.3))
        for path in (tmp_path / "snapshots").glob("*.tar"):
            assert unpack(path, tmp_path / "unpacked").clips == 1_000
            (tmp_path / "unpacked").unlink()
    with running(tmp_path) as (_, client):
        while any(job.state in UNFINISHED for job in client.jobs()):
            time.sleep(0.05)
        assert {job.state for job in client.jobs()} == {JobState.DONE}
    assert {path.suffix for path in (tmp_path / "snapshots").iterdir()} == {".tar"}
