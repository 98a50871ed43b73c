"""Snapshots that the service makes of itself, and keeps in its data folder until they are fetched and deleted."""

import errno
import re
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from offkey.errors import ErrorKind, OffkeyError
from offkey.schemas import Snapshot, SnapshotList
from offkey.vocabulary import JobKind
from service.jobs.handler import Work
from service.settings import Settings
from service.store.jobs import JobRecord
from service.store.snapshot.write import SnapshotError, write_snapshot
from service.usecases.service import Context

MAX_SNAPSHOTS = 10
_NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9]{1,19}\.tar")


def snapshot_folder(settings: Settings) -> Path:
    """Where they lie."""
    return settings.data_dir / "snapshots"


def sweep_snapshots(context: Context) -> None:
    """Remove what a snapshot leaves whose making was cut off."""
    for path in snapshot_folder(context.settings).glob("*.partial"):
        path.unlink(missing_ok=True)


def start_snapshot(context: Context) -> JobRecord:
    """Ask for a snapshot. Raises `OffkeyError`: too many are kept, or too many jobs wait."""
    kept = len(_kept(context.settings))
    if kept >= MAX_SNAPSHOTS:
        raise OffkeyError(
            ErrorKind.TOO_MANY_SNAPSHOTS,
            f"{kept} snapshots are kept, which is the limit. Fetch one and delete it (GET /snapshots).",
            max_snapshots=MAX_SNAPSHOTS,
        )
    return context.store.jobs.add(JobKind.SNAPSHOT, None, {})


def list_snapshots(context: Context) -> SnapshotList:
    """Those that are kept, the oldest first."""
    found = []
    for path in _kept(context.settings):
        status = path.stat()
        created_at = datetime.strptime(path.name.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        found.append(Snapshot(name=path.name, bytes=status.st_size, created_at=created_at))
    return SnapshotList(snapshots=found)


def snapshot_path(context: Context, name: str) -> Path:
    """The file of a snapshot. Raises `OffkeyError` if there is none of that name."""
    path = snapshot_folder(context.settings) / name
    if _NAME.fullmatch(name) is None or not path.is_file():
        raise OffkeyError(ErrorKind.UNKNOWN_SNAPSHOT, "There is no such snapshot. GET /snapshots lists them.")
    return path


def delete_snapshot(context: Context, name: str) -> None:
    """Delete one. Raises `OffkeyError` if there is none of that name."""
    snapshot_path(context, name).unlink(missing_ok=True)


def _kept(settings: Settings) -> list[Path]:
    folder = snapshot_folder(settings)
    return sorted(path for path in folder.glob("*.tar") if _NAME.fullmatch(path.name)) if folder.is_dir() else []


class MakeSnapshot:
    """Jobs of the kind `snapshot`. One that was interrupted begins anew."""

    def run(self, work: Work) -> str:
        """Write it; returns its name."""
        settings = work.context.settings
        folder = snapshot_folder(settings)
        try:
            folder.mkdir(exist_ok=True)
            write_snapshot(settings.data_dir, folder / _name(work))
        except SnapshotError as error:
            raise OffkeyError(ErrorKind.STORE_UNUSABLE, str(error)) from error
        except (OSError, sqlite3.Error) as error:
            full = getattr(error, "errno", None) == errno.ENOSPC or "full" in str(error)
            kind = ErrorKind.STORAGE_FULL if full else ErrorKind.STORE_UNUSABLE
            raise OffkeyError(kind, f"The snapshot could not be written: {error}.") from error
        return _name(work)

    def clean(self, work: Work, *, done: bool) -> None:
        """Of a job that was canceled no snapshot is kept."""
        if not done:
            (snapshot_folder(work.context.settings) / _name(work)).unlink(missing_ok=True)


def _name(work: Work) -> str:
    return f"{work.job.created_at:%Y%m%dT%H%M%SZ}-{work.job.job_id}.tar"
