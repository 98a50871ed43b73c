"""Snapshots are written and restored atomically and checked in every part. Damage names the machine."""

import errno
import hashlib
import io
import json
import os
import random
import shutil
import sqlite3
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from offkey.errors import ErrorKind, OffkeyError
from service.store import Store
from service.store.database.sqlite import DATABASE_FILE
from service.store.noise import NewNoise
from service.store.snapshot.check import check_database
from service.store.snapshot.restore import restore
from service.store.snapshot.write import MANIFEST_FILE, RESTORED_FILE, SnapshotError, unpack, write_snapshot


def dump(data_dir: Path) -> list[str]:
    """Everything in a store, as SQL."""
    with closing(sqlite3.connect(data_dir / DATABASE_FILE)) as raw:
        return list(raw.iterdump())


@pytest.fixture
def data(tmp_path: Path, fill: Callable[..., None]) -> Path:
    fill(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def snapshot(data: Path, tmp_path: Path) -> Path:
    write_snapshot(data, tmp_path / "backups.tar")
    return tmp_path / "backups.tar"


def test_what_was_packed_is_restored(data: Path, snapshot: Path, tmp_path: Path) -> None:
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backups.tar", "data"]
    assert snapshot.stat().st_mode & 0o777 == 0o600
    found = restore(snapshot, tmp_path / "elsewhere", replace=False)
    assert (found.machines, found.clips, found.windows) == (3, 12, 24)
    assert dump(tmp_path / "elsewhere") == dump(data)
    store = Store.open(tmp_path / "elsewhere")
    assert len(store.bank_rows(store.machine("m1").machine_key).vectors) == 8
    store.close()


def test_what_is_still_in_the_log_is_packed(data: Path, tmp_path: Path) -> None:
    """A service that was killed leaves commits that are in no other file; a running one has them too."""
    store = Store.open(data)
    with store.begin("m0") as tx:
        tx.delete_machine()
    write_snapshot(data, tmp_path / "running.tar")
    killed = shutil.copytree(data, tmp_path / "killed")
    store.close()
    assert (killed / f"{DATABASE_FILE}-wal").stat().st_size > 0
    write_snapshot(killed, tmp_path / "killed.tar")
    for name in ("running.tar", "killed.tar"):
        assert restore(tmp_path / name, tmp_path / f"from {name}", replace=False).machines == 2


def test_a_folder_that_is_not_empty_keeps_its_data_without_replace(
    data: Path, snapshot: Path, tmp_path: Path, fill: Callable[..., None]
) -> None:
    before = dump(data)
    other = tmp_path / "other"
    fill(other, machines=1)
    before_restore = dump(other)
    with pytest.raises(SnapshotError, match=r"is not empty .*--replace"):
        restore(snapshot, other, replace=False)
    assert dump(other) == before_restore
    restore(snapshot, other, replace=True)
    assert dump(other) == before
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").touch()
    with pytest.raises(SnapshotError, match=r"letter\.txt"):
        restore(snapshot, tmp_path / "home", replace=False)


def test_a_damaged_store_is_replaced_with_its_log(data: Path, snapshot: Path) -> None:
    """The old log must never be applied to the new database."""
    before = dump(data)
    store = Store.open(data)
    with store.begin("m0") as tx:
        tx.delete_machine()
    log = (data / f"{DATABASE_FILE}-wal").read_bytes()
    store.close()
    (data / f"{DATABASE_FILE}-wal").write_bytes(log)
    (data / DATABASE_FILE).write_bytes(b"no database at all" * 1_000)
    restore(snapshot, data, replace=True)
    assert dump(data) == before


def test_a_folder_in_use_is_not_restored_into_nor_served_twice(data: Path, snapshot: Path) -> None:
    store = Store.open(data)
    for ask in (lambda: restore(snapshot, data, replace=True), lambda: Store.open(data)):
        with pytest.raises(OffkeyError, match="Another Offkey process uses the data folder") as error:
            ask()
        assert error.value.kind is ErrorKind.STORE_BUSY
    assert store.machine("m0").clips == 4
    store.close()
    restore(snapshot, data, replace=True)


def test_a_snapshot_of_a_newer_version_is_refused(data: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(data / DATABASE_FILE)) as raw, raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    write_snapshot(data, tmp_path / "newer.tar")
    with pytest.raises(SnapshotError, match="schema 9999, which a newer version"):
        restore(tmp_path / "newer.tar", tmp_path / "new", replace=False)
    assert not (tmp_path / "new" / DATABASE_FILE).exists()


# -- what is not a snapshot

Entries = list[tuple[tarfile.TarInfo, bytes]]


def entries(snapshot: Path) -> Entries:
    with tarfile.open(snapshot) as tar:
        return [(entry, tar.extractfile(entry).read()) for entry in tar.getmembers()]


def entry(name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = "") -> Entries:
    found = tarfile.TarInfo(name)
    found.size, found.type, found.linkname = len(content), kind, link
    return [(found, content)]


def renamed(found: Entries, at: int, name: str) -> Entries:
    return [entry(name, content)[0] if place == at else (one, content) for place, (one, content) in enumerate(found)]


def with_manifest(found: Entries, **changes: object) -> Entries:
    manifest = json.loads(found[0][1])
    for path, value in changes.items():
        *outer, last = path.split("__")
        inner = manifest
        for key in outer:
            inner = inner[key.replace("database", DATABASE_FILE)]
        inner[last] = value
    return entry(MANIFEST_FILE, json.dumps(manifest).encode()) + found[1:]


HOSTILE: dict[str, tuple[Callable[[Entries], Entries], str]] = {
    "nothing": (lambda _: [], "this one nothing"),
    "no database": (lambda found: found[:1], "this one nothing"),
    "database first": (lambda found: found[::-1], "holds a file manifest.json"),
    "traversal": (lambda found: renamed(found, 1, f"../{DATABASE_FILE}"), "holds a file offkey"),
    "absolute": (lambda found: renamed(found, 1, f"/tmp/{DATABASE_FILE}"), "holds a file offkey"),
    "symbolic link": (
        lambda found: found[:1] + entry(DATABASE_FILE, b"", tarfile.SYMTYPE, "/etc/passwd"), "of type b'2'"),
    "hard link": (lambda found: found[:1] + entry(DATABASE_FILE, b"", tarfile.LNKTYPE, MANIFEST_FILE), "of type b'1'"),
    "device": (lambda found: found[:1] + entry(DATABASE_FILE, b"", tarfile.CHRTYPE), "of type b'3'"),
    "unknown member": (lambda found: found + entry("more"), "more than a snapshot"),
    "unknown member first": (lambda found: entry("more") + found, "'more'"),
    "the database twice": (lambda found: found + found[1:], "more than a snapshot"),
    "large manifest": (lambda found: entry(MANIFEST_FILE, b" " * 70_000) + found[1:], "at most 65536"),
    "manifest is no JSON": (lambda found: entry(MANIFEST_FILE, b"\xff{") + found[1:], "manifest cannot be read"),
    "deep manifest": (lambda found: entry(MANIFEST_FILE, b"[" * 60_000) + found[1:], "manifest cannot be read"),
    "manifest of the future": (lambda found: with_manifest(found, snapshot_version=2), "newer Offkey"),
    "unknown field in the manifest": (lambda found: with_manifest(found, color="red"), "manifest cannot be read"),
    "wrong hash": (lambda found: with_manifest(found, members__database__sha256="0" * 64), "changed or cut off"),
    "wrong size": (lambda found: with_manifest(found, members__database__size=10**12), "changed or cut off"),
    "too small a size": (lambda found: with_manifest(found, members__database__size=10), "at most 10 bytes"),
    "wrong count": (lambda found: with_manifest(found, clips=11), "promises 3 machines, 11 clips"),
    "wrong schema": (lambda found: with_manifest(found, schema_revision="0001"), "promises"),
}  # fmt: skip


def pack(found: Entries, path: Path) -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for one, content in found:
            tar.addfile(one, io.BytesIO(content))
    return path


@pytest.mark.parametrize("case", HOSTILE)
def test_nothing_of_a_snapshot_is_believed(data: Path, snapshot: Path, tmp_path: Path, case: str) -> None:
    change, message = HOSTILE[case]
    bad = pack(change(entries(snapshot)), tmp_path / "bad.tar")
    before = dump(data)
    for folder, replace in ((data, True), (tmp_path / "new", False)):
        with pytest.raises(SnapshotError, match=message):
            restore(bad, folder, replace=replace)
    assert dump(data) == before
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["offkey.lock"]


def test_a_database_that_is_none_is_refused_though_its_hash_is_right(snapshot: Path, tmp_path: Path) -> None:
    junk = b"SQLite format 3\0" + b"\x55" * 10_000
    digest = hashlib.sha256(junk).hexdigest()
    found = with_manifest(entries(snapshot), members__database__sha256=digest, members__database__size=len(junk))
    bad = pack(found[:1] + entry(DATABASE_FILE, junk), tmp_path / "bad.tar")
    with pytest.raises(SnapshotError, match="is damaged"):
        restore(bad, tmp_path / "new", replace=False)


def test_a_changed_byte_or_a_missing_end_is_noticed_or_harmless(snapshot: Path, tmp_path: Path) -> None:
    whole = snapshot.read_bytes()
    right = unpack(snapshot, tmp_path / "right").members
    rng = random.Random(0)
    places = [*rng.sample(range(2_048), 60), *rng.sample(range(len(whole)), 60)]
    bad = tmp_path / "bad.tar"
    refused = 0
    for at in places:
        bad.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << rng.randrange(8))]) + whole[at + 1 :])
        try:
            assert unpack(bad, tmp_path / "found").members == right
            assert (tmp_path / "found").read_bytes() == (tmp_path / "right").read_bytes()
        except SnapshotError:
            refused += 1
    assert refused > 60
    with tarfile.open(snapshot) as tar:
        last = tar.getmembers()[-1]
    for size in (0, 1, 511, 512, 1_024, 1_536, len(whole) // 2, last.offset_data + last.size - 1):
        bad.write_bytes(whole[:size])
        with pytest.raises(SnapshotError):
            unpack(bad, tmp_path / "found")


# -- when the disk does not do as it should


def faults(monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> list[str]:
    """The `number`th fsync, rename, open for writing or write fails. Returns a list of what was called."""
    calls: list[str] = []

    def failing(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            calls.append(name)
            if len(calls) == number:
                raise OSError(code, os.strerror(code))
            return real(*arguments, **named)

        return call

    for owner, name in ((os, "fsync"), (Path, "replace"), (os, "open"), (tarfile, "copyfileobj"),
                        (hashlib, "file_digest")):  # fmt: skip
        monkeypatch.setattr(owner, name, failing(name, getattr(owner, name)))
    return calls


def each_fault(monkeypatch: pytest.MonkeyPatch, run: Callable[[], object]) -> Iterator[bool]:
    """Run with the first step failing, then with the second, and so on; yields whether the run failed."""
    for number in range(1, 100):
        with monkeypatch.context() as patch:
            calls = faults(patch, number, (errno.ENOSPC, errno.EIO)[number % 2])
            try:
                run()
                failed = False
            except OSError:
                failed = True
        yield failed
        if len(calls) < number:
            assert number > 4
            return


def test_a_snapshot_that_fails_leaves_the_one_before(
    data: Path, snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot.read_bytes()
    for failed in each_fault(monkeypatch, lambda: write_snapshot(data, snapshot)):
        assert sorted(path.name for path in tmp_path.iterdir()) == ["backups.tar", "data"]
        assert unpack(snapshot, tmp_path / "found").machines == 3
        (tmp_path / "found").unlink()
        assert failed or snapshot.read_bytes() != before


def test_a_restore_that_fails_leaves_the_old_store_or_the_new_one(
    data: Path, snapshot: Path, tmp_path: Path, fill: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    new = dump(data)
    fill(tmp_path / "old", machines=1)
    old = dump(tmp_path / "old")
    runs = 0

    def run() -> None:
        nonlocal runs
        runs += 1
        shutil.copytree(tmp_path / "old", tmp_path / f"run-{runs}")
        restore(snapshot, tmp_path / f"run-{runs}", replace=True)

    for failed in each_fault(monkeypatch, run):
        Store.open(tmp_path / f"run-{runs}").close()
        found = dump(tmp_path / f"run-{runs}")
        assert found == new or (failed and found == old)
        left = {path.name for path in (tmp_path / f"run-{runs}").iterdir()}
        assert left <= {DATABASE_FILE, "offkey.lock"}


def test_a_restore_cut_off_at_the_end_is_ended_by_whoever_opens_the_folder(
    data: Path, snapshot: Path, tmp_path: Path
) -> None:
    wanted = dump(data)
    store = Store.open(data)
    with store.begin("m1") as tx:
        tx.delete_machine()
    log = (data / f"{DATABASE_FILE}-wal").read_bytes()
    store.close()
    (data / f"{DATABASE_FILE}-wal").write_bytes(log)
    unpack(snapshot, data / RESTORED_FILE)
    with pytest.raises(SnapshotError, match="was interrupted"):
        write_snapshot(data, tmp_path / "more.tar")
    Store.open(data).close()
    assert dump(data) == wanted


# -- damage


def spoil(data: Path, statement: str) -> None:
    with closing(sqlite3.connect(data / DATABASE_FILE)) as raw, raw:
        raw.execute(statement)


OF_M1 = "clip_id IN (SELECT clip_id FROM clip JOIN machine USING (machine_key) WHERE machine_id = 'm1')"
DAMAGES = {
    f"UPDATE embedding SET vector = zeroblob(256) WHERE {OF_M1}": "does not fit its checksum",
    f"UPDATE embedding SET start_s = 3.0 WHERE {OF_M1}": "does not fit its checksum",
    f"UPDATE embedding SET checksum = 5 WHERE {OF_M1}": "does not fit its checksum",
    f"UPDATE embedding SET vector = 'text' WHERE {OF_M1}": "",
    f"DELETE FROM embedding WHERE \"window\" = 0 AND {OF_M1}": "window 1 of clip 5 does not fit",
    f"DELETE FROM embedding WHERE \"window\" = 1 AND {OF_M1}": "window 0 of clip 5 does not fit",
    f"DELETE FROM embedding WHERE {OF_M1}": "required argument is not an integer",
    f"UPDATE clip SET domain = 'source' WHERE {OF_M1}": "does not fit its checksum",
}  # fmt: skip


@pytest.mark.parametrize("statement", DAMAGES)
def test_the_machine_that_is_damaged_is_named(data: Path, tmp_path: Path, statement: str) -> None:
    assert check_database(data / DATABASE_FILE).damage == ()
    spoil(data, statement)
    (damage,) = check_database(data / DATABASE_FILE).damage
    assert damage.machine_id == "m1"
    assert DAMAGES[statement] in damage.what
    with pytest.raises(SnapshotError, match="machine m1"):
        write_snapshot(data, tmp_path / "bad.tar")
    assert not (tmp_path / "bad.tar").exists()


@pytest.mark.parametrize("change", ["vectors = zeroblob(512)", "windows = 1", "embedding_space_id = 'another'"])
def test_damaged_noise_is_named(data: Path, change: str) -> None:
    store = Store.open(data)
    vectors = np.full((2, 64), 0.125, dtype=np.float32)
    with store.begin("m1") as tx:
        tx.add_noise("a-space", [NewNoise("a1", "hall", 20.0, vectors)])
    store.close()
    assert check_database(data / DATABASE_FILE).damage == ()
    spoil(data, f"UPDATE noise SET {change}")
    (damage,) = check_database(data / DATABASE_FILE).damage
    assert (damage.machine_id, damage.what) == ("m1", "clip 1 of the noise does not match its checksum")


@pytest.mark.parametrize(("vector", "message"), [
    ("X'0000C07F' || zeroblob(252)", "NaN or infinite"), ("X'0000803F' || zeroblob(248) || X'0000803F'", "norm"),
])  # fmt: skip
def test_embeddings_are_checked_for_themselves(data: Path, vector: str, message: str) -> None:
    """As if they had been written so: their checksums are right."""
    with closing(sqlite3.connect(data / DATABASE_FILE)) as raw, raw:
        raw.execute(f"UPDATE embedding SET vector = CAST({vector} AS BLOB) WHERE {OF_M1}")
        raw.execute("ALTER TABLE embedding DROP COLUMN checksum")
    (damage,) = check_database(data / DATABASE_FILE).damage
    assert damage.machine_id == "m1"
    assert message in damage.what


def test_a_corrupt_page_is_reported_with_its_machine(tmp_path: Path, fill: Callable[..., None]) -> None:
    data = tmp_path / "data"
    fill(data, machines=3, clips=20, dim=512)
    path = data / DATABASE_FILE
    whole = path.read_bytes()
    named = 0
    for page in range(1, len(whole) // 4_096):
        at = page * 4_096
        path.write_bytes(whole[:at] + bytes(4_096) + whole[at + 4_096 :])
        damage = check_database(path).damage
        assert damage
        named += bool({one.machine_id for one in damage} & {"m0", "m1", "m2"})
    assert named > 40
