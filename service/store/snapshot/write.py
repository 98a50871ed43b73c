"""Write snapshots: the contents of a data folder in one file that can be checked and restored anywhere.

A snapshot is a tar of a manifest and of the database, which SQLite copies while the service may continue to write. The
manifest states the size and hash of the database, its schema, and its contents.
"""

import errno
import hashlib
import io
import os
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from offkey.errors import ErrorKind, OffkeyError
from service import __version__
from service.store.database.lock import SNAPSHOT_LOCK_FILE, FolderLock
from service.store.database.sqlite import DATABASE_FILE, log_of
from service.store.snapshot.check import Report, check_database, contents, open_read_only

MANIFEST_FILE = "manifest.json"
RESTORED_FILE = f"{DATABASE_FILE}.restored"  # complete, about to replace the database
PARTIAL_FILE = f"{DATABASE_FILE}.partial"
_MAX_MANIFEST_BYTES = 65_536
_BLOCK = 2**20


class SnapshotError(Exception):
    """A snapshot cannot be written, is damaged, or must not be restored here."""


class Member(BaseModel):
    """A member of the snapshot."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(ge=0, description="bytes")


class SnapshotManifest(BaseModel):
    """Manifest of a snapshot."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    snapshot_version: Literal[1] = 1
    offkey_version: str
    created_at: datetime
    schema_revision: str
    machines: int
    clips: int
    windows: int
    members: dict[str, Member]

    def check(self, report: Report) -> None:
        """Raise SnapshotError if a database is damaged or not the one that was packed."""
        if report.damage:
            raise SnapshotError(damage_message("the snapshot's database", report))
        found = report.schema_revision, report.machines, report.clips, report.windows
        if found != (self.schema_revision, self.machines, self.clips, self.windows):
            raise SnapshotError(
                f"The manifest promises {self.contents}; the database has {report.contents}. Use another snapshot."
            )

    @property
    def contents(self) -> str:
        """Its size in words."""
        return contents(self.machines, self.clips, self.windows, self.schema_revision)


def damage_message(of: str, report: Report) -> str:
    """Return a message that lists the damage."""
    found = "".join(f"\n  {damage}" for damage in report.damage)
    return f"{of} is damaged:{found}"


def data_database(data_dir: Path) -> Path:
    """Return the database of a data folder. Raises SnapshotError if there is none, or a restore was interrupted."""
    database = data_dir / DATABASE_FILE
    if (data_dir / RESTORED_FILE).exists():
        raise SnapshotError(f"A restore of {data_dir} was interrupted. Start the service, or restore again.")
    if not database.is_file():
        raise SnapshotError(f"There is no {DATABASE_FILE} in {data_dir}. Name the folder with --data-dir.")
    return database


def write_snapshot(data_dir: Path, target: Path) -> SnapshotManifest:
    """Write a snapshot of a data folder, which a service may be using, to `target` atomically.

    Needs twice the size of the database next to `target` while it runs, and once after.

    Raises:
        SnapshotError: there is no store, or it is damaged: a good snapshot is never overwritten by a bad one.
        OffkeyError: another snapshot of this folder is being made.
        OSError, sqlite3.Error: the disk is full, or a folder cannot be read or written.
    """
    database = data_database(data_dir)
    copy = target.with_name(f"{target.name}.database.partial")
    packed = target.with_name(f"{target.name}.partial")
    lock = FolderLock(data_dir, SNAPSHOT_LOCK_FILE, used_by="Another snapshot is being written of")
    with lock, removed(copy, packed):
        _copy(database, copy)
        report = check_database(copy)
        if report.damage:
            raise SnapshotError(damage_message(f"{database}, which is why no snapshot was made,", report))
        manifest = SnapshotManifest(
            offkey_version=__version__,
            created_at=datetime.now(UTC),
            schema_revision=report.schema_revision,
            machines=report.machines,
            clips=report.clips,
            windows=report.windows,
            members={DATABASE_FILE: _member(copy)},
        )
        with private(packed) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            text = manifest.model_dump_json(indent=2).encode()
            _add(tar, MANIFEST_FILE, io.BytesIO(text), len(text))
            with copy.open("rb") as content:
                _add(tar, DATABASE_FILE, content, manifest.members[DATABASE_FILE].size)
        rename(packed, target)
    return manifest


def write_snapshot_of_service(data_dir: Path, target: Path) -> None:
    """Write a snapshot in answer to a request. Raises `OffkeyError`: the store is damaged, or the disk is full."""
    try:
        target.parent.mkdir(exist_ok=True)
        write_snapshot(data_dir, target)
    except SnapshotError as error:
        raise OffkeyError(ErrorKind.STORE_UNUSABLE, str(error)) from error
    except (OSError, sqlite3.Error) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC or "full" in str(error)
        kind = ErrorKind.STORAGE_FULL if full else ErrorKind.STORE_UNUSABLE
        raise OffkeyError(kind, f"The snapshot could not be written: {error}.") from error


def unpack(snapshot: Path, database: Path) -> SnapshotManifest:
    """Write the database of a snapshot to `database`, flush it to disk, and check it.

    The snapshot is not trusted: names, types and sizes of its members must be the expected ones, and only bytes are
    read from it.

    Raises:
        SnapshotError: it is not a whole and unchanged snapshot.
        OSError: it cannot be read, or the disk is full.
    """
    try:
        with snapshot.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            manifest = _manifest(_content(tar, MANIFEST_FILE, _MAX_MANIFEST_BYTES).read())
            member = manifest.members[DATABASE_FILE]
            content = _content(tar, DATABASE_FILE, member.size)
            with private(database) as out:
                _copy_member(content, out, member)
            if tar.next() is not None:
                raise SnapshotError(f"{snapshot} holds more than a snapshot does. Use another one.")
    except (tarfile.TarError, EOFError) as error:
        raise SnapshotError(f"{snapshot} is no snapshot, or breaks off: {error}.") from error
    manifest.check(check_database(database))
    return manifest


def rename(source: Path, target: Path) -> None:
    """Rename a file so that the new name survives a power cut."""
    source.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def private(path: Path) -> Iterator[IO[bytes]]:
    """Create a file that only its owner may read. It is on disk when the block ends."""
    path.unlink(missing_ok=True)
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def removed(*paths: Path) -> Iterator[None]:
    """Delete leftover files, and delete them again when the block ends."""
    every = [with_journal for path in paths for with_journal in (path, path.with_name(f"{path.name}-journal"))]
    for path in every:
        path.unlink(missing_ok=True)
    try:
        yield
    finally:
        for path in every:
            with suppress(OSError):
                path.unlink(missing_ok=True)


# Archives of these jobs are not in the snapshot, and one of the jobs may be the snapshot itself.
_END_JOBS = """
UPDATE job SET state = 'canceled', ended_at = CURRENT_TIMESTAMP,
  detail = 'It was not finished when the snapshot was written.'
WHERE state IN ('queued', 'running')
"""


def _copy(database: Path, copy: Path) -> None:
    with private(copy):
        pass
    with closing(open_read_only(database)) as source, closing(sqlite3.connect(copy, isolation_level=None)) as target:
        source.backup(target)  # as of one moment, and writers do not wait
        target.execute("PRAGMA journal_mode=DELETE")  # one file, without a log
        if target.execute("PRAGMA table_info(job)").fetchall():
            target.execute(_END_JOBS)
    log_of(copy).unlink(missing_ok=True)


def _member(path: Path) -> Member:
    with path.open("rb") as file:
        return Member(sha256=hashlib.file_digest(file, "sha256").hexdigest(), size=path.stat().st_size)


def _add(tar: tarfile.TarFile, name: str, content: IO[bytes], size: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = size, 0o600, int(datetime.now(UTC).timestamp())
    tar.addfile(entry, content)


def _content(tar: tarfile.TarFile, name: str, most: int) -> IO[bytes]:
    entry = tar.next()
    if entry is None or entry.name != name or entry.type != tarfile.REGTYPE or entry.issparse() or entry.size > most:
        found = "nothing" if entry is None else f"{entry.name[:80]!r} of type {entry.type!r} and {entry.size} bytes"
        raise SnapshotError(f"A snapshot holds a file {name} of at most {most} bytes here; this one {found}.")
    content = tar.extractfile(entry)
    assert content is not None
    return content


def _manifest(text: bytes) -> SnapshotManifest:
    try:
        manifest = SnapshotManifest.model_validate_json(text)
    except ValidationError as error:
        raise SnapshotError(f"The manifest cannot be read; a newer Offkey may have made it: {error}") from error
    if set(manifest.members) != {DATABASE_FILE}:
        raise SnapshotError(f"The snapshot's manifest names {sorted(manifest.members)[:5]}, not {DATABASE_FILE} alone.")
    return manifest


def _copy_member(content: IO[bytes], out: IO[bytes], member: Member) -> None:
    digest, size = hashlib.sha256(), 0
    while block := content.read(_BLOCK):
        digest.update(block)
        size += len(block)
        out.write(block)
    if (digest.hexdigest(), size) != (member.sha256, member.size):
        raise SnapshotError(
            f"{DATABASE_FILE} has {size} bytes with sha256 {digest.hexdigest()}; its manifest states {member.size} "
            f"bytes "
            f"with {member.sha256}. The snapshot was changed or cut off; use another one."
        )
