"""Writes, fsyncs, truncations and renames that fail, one after another: strace has the kernel refuse them.

A child does its work again and again while every n-th call fails, so that in the end each call of the work has.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.store import Store
from service.store.check import check_database
from service.store.engine import DATABASE_FILE
from service.store.snapshot import unpack, write_snapshot

TORTURE = "OFFKEY_TORTURE" in os.environ
TURNS = 2_000 if TORTURE else 60  # changes of a store
FILES = 1_000 if TORTURE else 20  # snapshots, and restores
WRITES, SYNCS = "pwrite64,ftruncate", "fsync,fdatasync"

STRACE = ("strace", "-f", "-qq")
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace makes system calls fail; install it")

# What is acknowledged is there at once, what is refused is not, and every refusal is one that a person can act on.
STORE = """
import json, resource, sys
from pathlib import Path
import numpy as np
from service.domain.errors import OffkeyError
from service.domain.machine import Domain
from service.domain.threshold import Rule
from service.store import BankLimits, NewClip, Store

data, turns, short = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
refusals, ids, enrolled, rates = [], [], {}, {}

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

def tried(work):
    if short and len(refusals) < short and len(ids) > 3:
        log = data / "offkey.sqlite3-wal"
        limit(log.stat().st_size + 1 + (37 * len(refusals)) % 4_000)  # so much of the next page, and no more
    try:
        return work()
    except OffkeyError as error:
        refusals.append(error.kind.value)
    finally:
        limit(resource.RLIM_INFINITY)

store = None
while store is None:
    store = tried(lambda: Store.open(data))
for turn in range(turns):
    name = f"m{turn % 3}"
    vectors = np.eye(4, dtype=np.float32)[:2]
    if name not in enrolled:
        if tried(lambda: store.put_machine(name, description="x" * 400)):
            enrolled[name], rates[name] = [], None
    elif turn % 11 == 10:
        if tried(lambda: store.delete_machine(name)):
            del enrolled[name], rates[name]
    elif turn % 7 == 6 and enrolled[name]:
        if tried(lambda: store.delete_clip(name, enrolled[name][0])):
            enrolled[name].pop(0)
    elif turn % 5 == 4:
        rate = 0.01 + turn / 1e5
        if tried(lambda: store.put_threshold(name, Rule.CONFORMAL, false_alarm_rate=rate, decision_threshold=None)):
            rates[name] = rate
    else:
        new = [
            NewClip(f"{turn:032x}{n:032x}", f"{n}.wav", None, Domain.SOURCE, 1.0, 16_000, 1, vectors, np.zeros(2))
            for n in range(3)
        ]
        found = tried(
            lambda: store.add_clips(
                store.machine(name), "space", new, known={}, limits=BankLimits(10**6, 10**6)
            )
        )
        if found:
            assert ids[-1:] < [found[0][0].clip_id]
            ids += [one.clip_id for one in found[0]]
            enrolled[name] += [one.clip_id for one in found[0]]
    seen = {one.machine_id: one.false_alarm_rate for one in store.machines(after="", limit=100)}
    assert seen == rates, (turn, seen, rates)
    for one in enrolled:
        assert [clip.clip_id for clip in store.clips(one, after=0, limit=10**6)] == enrolled[one], turn
print(json.dumps({"refusals": refusals, "enrolled": enrolled, "rates": rates}))
"""

SNAPSHOT = """
import json, sqlite3, sys
from pathlib import Path
from service.store.check import check_database
from service.store.snapshot import unpack, write_snapshot

data, target, scratch, turns = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
refusals = []
for turn in range(turns):
    try:
        write_snapshot(data, target)
    except (OSError, sqlite3.Error) as error:
        refusals.append(str(error))
    unpack(target, scratch)
print(json.dumps({"refusals": refusals}))
"""

RESTORE = """
import json, sqlite3, sys
from contextlib import closing
from pathlib import Path
from service.domain.errors import OffkeyError
from service.store import Store
from service.store.restore import restore

*packed, data, turns = sys.argv[1:]
data, refusals = Path(data), []
for turn in range(int(turns)):
    restored = True
    try:
        restore(Path(packed[turn % 2]), data, replace=True)
    except (OSError, sqlite3.Error) as error:
        refusals.append(str(error))
        restored = False
    for _ in range(9):  # as a service that is started after it, and again if it ends
        try:
            store = Store.open(data)
            break
        except (OSError, OffkeyError) as error:
            refusals.append(str(error))
    machines = len(store.machines(after="", limit=100))
    store.close()
    assert machines == 1 + turn % 2 if restored else machines in (1, 2)
print(json.dumps({"refusals": refusals}))
"""


def under_faults(script: str, *arguments: object, calls: str, fault: str, when: str, paths: list[Path]) -> Any:
    """Run a script; return what it found, and how many of its calls on these files were made to fail."""
    only = [word for path in paths for word in ("-P", str(path))]
    command = [
        *STRACE,
        "--seccomp-bpf",
        "-o",
        "!cat 1>&2",
        "-e",
        f"trace={calls}",
        "-e",
        f"inject={calls}:{fault}:when={when}",
        *only,
    ]
    done = subprocess.run(
        [*command, sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True, text=True, timeout=3_000 if TORTURE else 40, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4_000:]
    return json.loads(done.stdout), done.stderr.count("(INJECTED)")


def files_of(folder: Path, *names: str) -> list[Path]:
    return [folder / f"{name}{end}" for name in names for end in ("", "-wal", "-shm", "-journal")]


def assert_whole(data: Path, found: dict[str, Any]) -> None:
    """Started anew, without faults: what was acknowledged and nothing else."""
    store = Store.open(data)
    assert {one.machine_id: one.false_alarm_rate for one in store.machines(after="", limit=100)} == found["rates"]
    for machine, clips in found["enrolled"].items():
        assert [clip.clip_id for clip in store.clips(machine, after=0, limit=10**6)] == clips
    store.close()
    assert check_database(data / DATABASE_FILE).damage == ()


@needs_strace
@pytest.mark.timeout(3_600 if TORTURE else 120)
@pytest.mark.parametrize(
    ("calls", "error", "kinds"),
    [
        (WRITES, "ENOSPC", {"storage-full"}),
        (WRITES, "EIO", {"store-unusable"}),
        (SYNCS, "EIO", {"store-unusable"}),
        (SYNCS, "ENOSPC", {"store-unusable"}),  # SQLite does not say of an fsync that the disk is full
    ],
)
def test_every_write_of_the_store_may_fail(tmp_path: Path, calls: str, error: str, kinds: set[str]) -> None:
    # So wide that what is done between two failures is mostly done whole: it takes up to 12 writes, or an fsync or two.
    for step in ((3, 5, 7) if TORTURE else (5,)) if calls == SYNCS else ((17, 23, 31, 61) if TORTURE else (23,)):
        data = tmp_path / f"data-{step}"
        Store.open(data).close()
        found, faults = under_faults(
            STORE, data, TURNS, 0, calls=calls, fault=f"error={error}", when=f"2+{step}",
            paths=[data / DATABASE_FILE, data / f"{DATABASE_FILE}-wal"],
        )  # fmt: skip
        assert kinds == set(found["refusals"])
        assert TURNS / 20 < len(found["refusals"]) <= faults
        assert sum(map(len, found["enrolled"].values())) > TURNS / 10
        assert_whole(data, found)


def test_every_write_of_the_store_may_be_short(tmp_path: Path) -> None:
    """The kernel writes what fits under a limit of the size of a file, and then refuses."""
    shorts = TURNS // 3
    done = subprocess.run(
        [sys.executable, "-c", STORE, str(tmp_path), str(TURNS), str(shorts)],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4_000:]
    found = json.loads(done.stdout)
    assert found["refusals"] == ["store-unusable"] * shorts
    assert_whole(tmp_path, found)


@needs_strace
@pytest.mark.timeout(3_600 if TORTURE else 120)
@pytest.mark.parametrize("call", range(1, 41, 1 if TORTURE else 13))
def test_kill_9_at_every_write_and_fsync_of_the_store(tmp_path: Path, call: int) -> None:
    """Nothing that was acknowledged is lost: the machines of the first run are there after the second was killed."""
    data = tmp_path / "data"
    done = subprocess.run(
        [sys.executable, "-c", STORE, str(data), "4", "0"], capture_output=True, text=True, check=True
    )
    enrolled = json.loads(done.stdout)["enrolled"]
    calls = f"{WRITES},{SYNCS}"
    script = (
        "import sys; from pathlib import Path; from service.store import Store\n"
        "store = Store.open(Path(sys.argv[1]))\n"
        "for turn in range(100): store.put_machine(f'k{turn}', description=''); print(turn, flush=True)\n"
    )
    killed = subprocess.run(
        [
            *(*STRACE, "-o", "/dev/null", "-e", f"trace={calls}", "-e", f"inject={calls}:signal=KILL:when={call}"),
            *(sys.executable, "-c", script, str(data)),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert killed.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), killed.stderr
    acknowledged = {f"k{turn}" for turn in killed.stdout.split()}
    store = Store.open(data)
    found = {one.machine_id for one in store.machines(after="", limit=1_000)}
    assert acknowledged | set(enrolled) <= found
    assert len(found - acknowledged - set(enrolled)) <= 1
    for machine, clips in enrolled.items():
        assert [clip.clip_id for clip in store.clips(machine, after=0, limit=10**6)] == clips
    store.close()
    assert check_database(data / DATABASE_FILE).damage == ()


@needs_strace
@pytest.mark.timeout(3_600 if TORTURE else 120)
@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_every_call_of_a_snapshot_may_fail(tmp_path: Path, fill: Callable[..., None], error: str) -> None:
    """The one before stays, and nothing is left over beside it."""
    fill(tmp_path / "data")
    folder = tmp_path / "backups"
    folder.mkdir()
    target = folder / "backup.tar"
    write_snapshot(tmp_path / "data", target)
    found, faults = under_faults(
        SNAPSHOT, tmp_path / "data", target, tmp_path / "found", FILES,
        calls=f"write,{WRITES},{SYNCS},rename", fault=f"error={error}", when="1+5",
        paths=[folder, target, *files_of(folder, "backup.tar.database.partial", "backup.tar.partial")],
    )  # fmt: skip
    assert FILES / 2 < len(found["refusals"]) <= faults
    assert [path.name for path in folder.iterdir()] == ["backup.tar"]
    write_snapshot(tmp_path / "data", target)
    unpack(target, tmp_path / "found")


@needs_strace
@pytest.mark.timeout(3_600 if TORTURE else 120)
@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_every_call_of_a_restore_may_fail(tmp_path: Path, fill: Callable[..., None], error: str) -> None:
    """The folder holds what it held, or what the snapshot holds."""
    packed = []
    for machines in (1, 2):
        fill(tmp_path / f"{machines}", machines=machines)
        packed.append(tmp_path / f"{machines}.tar")
        write_snapshot(tmp_path / f"{machines}", packed[-1])
    data = tmp_path / "data"
    fill(data, machines=1)
    found, faults = under_faults(
        RESTORE, *packed, data, FILES,
        calls=f"write,{WRITES},{SYNCS},rename,unlink", fault=f"error={error}", when="1+17",
        paths=[data, *files_of(data, DATABASE_FILE, f"{DATABASE_FILE}.partial", f"{DATABASE_FILE}.restored")],
    )  # fmt: skip
    assert FILES / 2 < len(found["refusals"]) <= faults
    Store.open(data).close()
    assert check_database(data / DATABASE_FILE).damage == ()
