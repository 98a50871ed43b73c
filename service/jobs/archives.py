"""Enrolling the clips of a zip archive."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from offkey.errors import ErrorKind, OffkeyError
from offkey.schemas import EnrolledClip
from offkey.vocabulary import Domain, EntryStatus, JobKind
from service.audio.archive import Archive, ArchiveEntry, ArchiveLimits
from service.jobs.handler import Work
from service.settings import Settings
from service.store import AnsweredError, MachineRecord
from service.store.jobs import JobEntry, JobRecord, Step
from service.usecases.clip import Clip
from service.usecases.enroll import EnrollOptions, enroll_entries
from service.usecases.service import Context

_BATCH = 32  # clips that are committed at once
_ABOUT_ENTRY = frozenset({ErrorKind.UNREADABLE_ARCHIVE, ErrorKind.BODY_TOO_LARGE})


@dataclass(frozen=True)
class ArchiveFile:
    """An archive that was uploaded, on disk."""

    path: Path  # in the folder of archives
    sha256: str


def archive_folder(settings: Settings) -> Path:
    """Where archives lie until their jobs are over."""
    return settings.data_dir / "jobs"


def sweep_archives(context: Context) -> None:
    """Remove archives that no job waits for: of uploads that broke off, and of jobs that ended with the service."""
    wanted = {job.asked.get("file") for job in context.store.jobs.unfinished()}
    for path in archive_folder(context.settings).glob("*"):
        if path.name not in wanted:
            path.unlink(missing_ok=True)


def enroll_archive(
    context: Context,
    machine: MachineRecord,
    condition: EnrollOptions,
    uploaded: ArchiveFile,
    idempotency_key: str | None,
) -> JobRecord:
    """Ask for the clips of an archive to be enrolled. The archive is the job's from then on.

    Raises:
        OffkeyError: it is no archive, or holds too many entries or none; too many jobs wait; or the key came with
            another request.
    """
    with Archive(uploaded.path, _limits(context.settings)) as archive:
        if not archive.entries:
            raise OffkeyError(ErrorKind.UNREADABLE_ARCHIVE, "The archive holds no file. Put audio files into it.")
    asked = {
        "file": uploaded.path.name,
        "machine_key": machine.machine_key,
        "domain": condition.domain,
        "recording": condition.recording,
        "trusted": condition.trusted,
    }
    once = None
    if idempotency_key is not None:
        said = [machine.machine_id, uploaded.sha256, *(asked[name] for name in ("domain", "recording", "trusted"))]
        once = idempotency_key, hashlib.sha256(json.dumps(said).encode()).hexdigest()
    try:
        return context.store.jobs.add(JobKind.ENROLL, machine, asked, once)
    except AnsweredError as error:
        uploaded.path.unlink()
        return context.store.jobs.get(int(error.answer))


def _limits(settings: Settings) -> ArchiveLimits:
    return ArchiveLimits(settings.max_zip_entries, settings.max_body_bytes, settings.max_unpacked_bytes)


class EnrollArchive:
    """Jobs of the kind `enroll`."""

    def run(self, work: Work) -> None:
        """Enroll batch after batch; what is reported of each commits with its clips."""
        context, job = work.context, work.job
        with Archive(_path(work), _limits(context.settings)) as archive:
            context.store.jobs.plan(job.job_id, len(archive.entries))
            reported = context.store.jobs.reported(job.job_id)
            done = len(reported)
            todo = [entry for entry in archive.entries if entry.number not in reported]
            for batch in _batches(work, archive, todo):
                done += len(batch)
                _enroll(work, batch, done)

    def clean(self, work: Work, *, done: bool) -> None:
        """The archive is not needed any more."""
        del done
        (archive_folder(work.context.settings) / str(work.job.asked["file"])).unlink(missing_ok=True)


Read = tuple[ArchiveEntry, Clip | OffkeyError]


def _path(work: Work) -> Path:
    path = archive_folder(work.context.settings) / str(work.job.asked["file"])
    if not path.is_file():  # a snapshot holds no archives
        raise OffkeyError(
            ErrorKind.UNREADABLE_ARCHIVE, "The archive is gone, as after a restore. Post it again; nothing is doubled."
        )
    return path


def _batches(work: Work, archive: Archive, entries: Sequence[ArchiveEntry]) -> Iterator[list[Read]]:
    """Entries that are committed together: so many, or as many bytes as one request may have."""
    batch: list[Read] = []
    size = 0
    for entry in entries:
        work.check()
        try:
            upload = Clip(entry.name, archive.read(entry), work.budget())
            batch.append((entry, upload))
            size += len(upload.data)
        except OffkeyError as error:
            if error.kind not in _ABOUT_ENTRY:
                raise
            batch.append((entry, error))
        if len(batch) == _BATCH or size >= work.context.settings.max_body_bytes:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _enroll(work: Work, batch: Sequence[Read], done: int) -> None:
    asked = work.job.asked
    uploads = [upload for _, upload in batch if isinstance(upload, Clip)]

    def step(found: Sequence[EnrolledClip | OffkeyError]) -> Step:
        rest = iter(found)
        entries = [_told(entry, next(rest) if isinstance(upload, Clip) else upload) for entry, upload in batch]
        return Step(work.job.job_id, done, entries)

    if not uploads:
        work.context.store.jobs.take(step([]))
        return
    condition = EnrollOptions(Domain(asked["domain"]), asked["recording"], trusted=asked["trusted"])
    enroll_entries(work.context, str(work.job.machine_id), int(asked["machine_key"]), condition, uploads, step)


def _told(entry: ArchiveEntry, found: EnrolledClip | OffkeyError) -> JobEntry:
    if isinstance(found, OffkeyError):
        return JobEntry(entry.number, entry.name, EntryStatus.REFUSED, problem=found.kind.value, detail=found.detail)
    notes = [found.note, *(warning.detail for warning in found.warnings)]
    return JobEntry(
        entry.number,
        entry.name,
        EntryStatus(found.status),
        found.clip_id,
        detail=" ".join(note for note in notes if note) or None,
    )
