"""Snapshots and restores that are killed, or run out of disk, beside a service at work."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from service.store import Store
from service.store.database.sqlite import DATABASE_FILE, MIGRATIONS
from service.store.snapshot.check import check_database
from service.store.snapshot.write import unpack, write_snapshot
from torture import scaled

Run = Callable[..., "subprocess.CompletedProcess[str]"]
KILLS = int(os.environ.get("OFFKEY_KILLS", scaled(1_000, 10)))

CHILD = """
import itertools, shutil, sys
from pathlib import Path
import service.store.database.sqlite
from service.store import Store
from service.store.snapshot.restore import restore
from service.store.snapshot.write import write_snapshot
first, second, third = map(Path, sys.argv[1:])
print("ready", flush=True)
for turn in itertools.count():
    {work}
"""


def killed_at_random(rng: random.Random, work: str, *paths: Path, most: float) -> None:
    """Run a line of code again and again in a process of its own, and kill it at some moment of up to `most` s."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD.format(work=work), *map(str, paths)], stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.0, most))
        assert child.poll() is None
        child.send_signal(signal.SIGKILL)


def dump(data_dir: Path) -> list[str]:
    """Everything in a store, as SQL."""
    with closing(sqlite3.connect(data_dir / DATABASE_FILE)) as raw:
        return list(raw.iterdump())


@pytest.mark.timeout(3_600 if KILLS > 100 else 120)
def test_a_snapshot_beside_a_writer_is_whole_at_every_kill(
    offkey: Run, serve: Callable[..., str], fan: Callable[..., bytes], tmp_path: Path
) -> None:
    """As of one moment: as many clips as changes of the bank; and none that was acknowledged before is missing."""
    data = tmp_path / "data"
    url = serve(data)
    httpx2.put(f"{url}/machines/fan-1")
    acknowledged: list[int] = []
    done, turns = threading.Event(), threading.Semaphore(0)
    base = fan(0, seconds=1.0)

    def enroll() -> None:
        while not done.is_set():
            if not turns.acquire(timeout=0.1):
                continue
            clip = base[:-4] + len(acknowledged).to_bytes(4, "little")
            answer = httpx2.post(
                f"{url}/enroll", params={"machine_id": "fan-1", "force": True}, content=clip, timeout=30
            )
            assert answer.status_code == 201, answer.text
            acknowledged.append(answer.json()["clips"][0]["clip_id"])

    def packed(path: Path) -> set[int]:
        unpack(path, tmp_path / "found")
        with closing(sqlite3.connect(tmp_path / "found")) as raw:
            clips = {row[0] for row in raw.execute("SELECT clip_id FROM clip")}
            assert raw.execute("SELECT generation FROM machine").fetchone() == (len(clips),)
        (tmp_path / "found").unlink()
        return clips

    rng, target = random.Random(0), tmp_path / "backup.tar"
    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(enroll)
        try:
            for _ in range(KILLS):
                turns.release(3)  # so many changes meanwhile; without a bound a thousand snapshots would copy gigabytes
                before = set(acknowledged)
                write_snapshot(data, target)
                assert before <= packed(target)
                killed_at_random(rng, "write_snapshot(first, second)", data, target, tmp_path, most=0.1)
                assert before <= packed(target)
        finally:
            done.set()
        writer.result(30)
    found = offkey("snapshot", target, "--data-dir", data)
    assert found.returncode == 0, found.stderr
    assert f"1 machines, {len(acknowledged)} clips" in found.stdout
    assert packed(target) == set(acknowledged)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup.tar", "data"]
    assert offkey("verify", data).returncode == 0
    refused = offkey("restore", target, "--data-dir", data, "--replace")
    assert refused.returncode == 1
    assert "Another Offkey process uses" in refused.stderr


@pytest.mark.timeout(3_600 if KILLS > 100 else 120)
def test_a_restore_ends_on_one_side_at_every_kill(tmp_path: Path, fill: Callable[..., None]) -> None:
    sides = {}
    for name, machines in (("one", 1), ("two", 2)):
        fill(tmp_path / name, machines=machines)
        write_snapshot(tmp_path / name, tmp_path / f"{name}.tar")
        sides[name] = dump(tmp_path / name)
    rng, found = random.Random(0), []
    data = tmp_path / "data"
    for _ in range(KILLS):
        work = "restore((first, second)[turn % 2], third, replace=True)"
        killed_at_random(rng, work, tmp_path / "one.tar", tmp_path / "two.tar", data, most=0.1)
        Store.open(data).close()
        if check_database(data / DATABASE_FILE).machines:  # else it was killed before the first one ended
            found.append(dump(data))
    assert all(one in sides.values() for one in found)
    assert len(found) > KILLS // 2


@pytest.mark.timeout(3_600 if KILLS > 100 else 120)
def test_a_migration_is_whole_or_not_begun_at_every_kill(
    tmp_path: Path, fill: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first schema, with clips in it, to the newest."""
    fill(tmp_path / "new", machines=2)
    with closing(sqlite3.connect(tmp_path / "new" / DATABASE_FILE)) as raw, raw:  # the first schema had no audit log
        raw.execute("DELETE FROM audit")
        raw.execute("DELETE FROM sqlite_sequence WHERE name = 'audit'")
    wanted = dump(tmp_path / "new")
    first = shutil.copytree(MIGRATIONS, tmp_path / "first")
    for later in (first / "versions").glob("*.py"):
        if not later.name.startswith("0001"):
            later.unlink()
    with monkeypatch.context() as patch:
        patch.setattr("service.store.database.sqlite.MIGRATIONS", first)
        Store.open(tmp_path / "old").close()
    with closing(sqlite3.connect(tmp_path / "old" / DATABASE_FILE)) as raw, raw:
        raw.execute("ATTACH DATABASE ? AS new", (str(tmp_path / "new" / DATABASE_FILE),))
        for table in ("machine", "clip", "embedding"):
            names = ", ".join(f'"{row[1]}"' for row in raw.execute(f"PRAGMA main.table_info({table})"))
            raw.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM new.{table}")
    rng = random.Random(0)
    for _ in range(KILLS):
        work = "shutil.rmtree(second, ignore_errors=True); shutil.copytree(first, second); Store.open(second).close()"
        killed_at_random(rng, work, tmp_path / "old", tmp_path / "data", tmp_path, most=0.3)
        if not (tmp_path / "data" / DATABASE_FILE).exists():  # killed while it was copied
            continue
        if (tmp_path / "data" / DATABASE_FILE).stat().st_size < (tmp_path / "old" / DATABASE_FILE).stat().st_size:
            continue
        Store.open(tmp_path / "data").close()
        assert check_database(tmp_path / "data" / DATABASE_FILE).damage == ()
        found = dump(tmp_path / "data")
        assert sorted(found) == sorted(wanted)


def test_a_full_disk_costs_the_snapshot_and_nothing_else(
    offkey: Run, small_disk: Callable[[int], Path], tmp_path: Path, fill: Callable[..., None]
) -> None:
    data, disk = tmp_path / "data", small_disk(2**20)
    fill(data, machines=2, clips=4)
    target = disk / "backup.tar"
    assert offkey("snapshot", target, "--data-dir", data).returncode == 0
    before = target.read_bytes()
    fill(tmp_path / "large", machines=2, clips=200, dim=512)
    for room in (0, 20_000, 100_000, 400_000):
        (disk / "filler").write_bytes(bytes(2**20 - len(before) - 40_000 - room))
        found = offkey("snapshot", target, "--data-dir", tmp_path / "large")
        assert found.returncode == 1
        assert "full" in found.stderr or "No space left" in found.stderr
        assert sorted(path.name for path in disk.iterdir()) == ["backup.tar", "filler"]
        assert target.read_bytes() == before
        (disk / "filler").unlink()
    write_snapshot(tmp_path / "large", tmp_path / "large.tar")
    found = offkey("restore", tmp_path / "large.tar", "--data-dir", disk / "data")
    assert found.returncode == 1
    assert "No space left" in found.stderr
    assert [path.name for path in (disk / "data").iterdir()] == ["offkey.lock"]
    assert offkey("restore", target, "--data-dir", disk / "data").returncode == 0
    assert "2 machines, 8 clips" in offkey("verify", disk / "data").stdout
