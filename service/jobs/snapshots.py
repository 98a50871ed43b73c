"""Write snapshots, and keep them in the data folder until they are downloaded and deleted."""

import re
from datetime import UTC, datetime
from pathlib import Path

from offkey.errors import ErrorKind, OffkeyError
from offkey.schemas import Job, Snapshot, SnapshotList
from offkey.vocabulary import JobKind
from service.jobs.handler import JobRun
from service.settings import Settings
from service.usecases.jobs import job_of
from service.usecases.service import Call

MAX_SNAPSHOTS = 10
_NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9]{1,19}\.tar")


def snapshot_folder(settings: Settings) -> Path:
    """Return the folder of snapshots."""
    return settings.data_dir / "snapshots"


def start_snapshot(call: Call) -> Job:
    """Queue a snapshot. Raises `OffkeyError`: too many are stored, or too many jobs wait."""
    stored = len(_stored(call.service.settings))
    if stored >= MAX_SNAPSHOTS:
        raise OffkeyError(
            ErrorKind.TOO_MANY_SNAPSHOTS,
            f"{stored} snapshots are stored, which is the limit. Download one and delete it (GET /snapshots).",
            max_snapshots=MAX_SNAPSHOTS,
        )
    with call.store.begin() as tx:
        job = tx.add_job(JobKind.SNAPSHOT, {})
    call.service.job_signals.wake()
    return job_of(call, job)


def list_snapshots(call: Call) -> SnapshotList:
    """Return the stored snapshots, oldest first."""
    found = []
    for path in _stored(call.service.settings):
        status = path.stat()
        created_at = datetime.strptime(path.name.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        found.append(Snapshot(name=path.name, bytes=status.st_size, created_at=created_at))
    return SnapshotList(snapshots=found)


def snapshot_path(call: Call, name: str) -> Path:
    """Return the file of a snapshot. Raises `OffkeyError` if there is no snapshot of that name."""
    path = snapshot_folder(call.service.settings) / name
    if _NAME.fullmatch(name) is None or not path.is_file():
        raise OffkeyError(ErrorKind.UNKNOWN_SNAPSHOT, "There is no such snapshot. GET /snapshots lists them.")
    return path


def delete_snapshot(call: Call, name: str) -> None:
    """Delete a snapshot. Raises `OffkeyError` if there is no snapshot of that name."""
    snapshot_path(call, name).unlink(missing_ok=True)


def _stored(settings: Settings) -> list[Path]:
    folder = snapshot_folder(settings)
    return sorted(path for path in folder.glob("*.tar") if _NAME.fullmatch(path.name)) if folder.is_dir() else []


class MakeSnapshot:
    """Handles jobs of the kind `snapshot`. An interrupted job starts again."""

    def run(self, run: JobRun) -> str:
        """Write the snapshot. Returns its name."""
        folder = snapshot_folder(run.call.service.settings)
        run.call.store.write_snapshot(folder / _name(run))
        return _name(run)

    def clean(self, run: JobRun, *, done: bool) -> None:
        """Delete the snapshot of a job that was canceled."""
        if not done:
            (snapshot_folder(run.call.service.settings) / _name(run)).unlink(missing_ok=True)


def _name(run: JobRun) -> str:
    return f"{run.job.created_at:%Y%m%dT%H%M%SZ}-{run.job.job_id}.tar"
