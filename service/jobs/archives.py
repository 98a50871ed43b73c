"""Enroll the clips of a zip archive."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from offkey.errors import ErrorKind, OffkeyError
from offkey.schemas import EnrolledClip, Job
from offkey.vocabulary import Domain, EntryStatus, JobKind
from service.audio.archive import Archive, ArchiveEntry, ArchiveLimits
from service.jobs.handler import JobRun
from service.settings import Settings
from service.store import BankChangedError, IdempotencyKey, MachineRecord
from service.store.jobs import JobEntry
from service.telemetry.stages import Stage
from service.usecases.clip import Clip
from service.usecases.enroll import (
    Embedded,
    EnrollOptions,
    check_machine_key,
    commit_clips,
    count_enrolled,
    prepare_clips,
)
from service.usecases.jobs import job_of
from service.usecases.service import Call, Service

_BATCH = 32  # clips that are committed together
_ABOUT_ENTRY = frozenset({ErrorKind.UNREADABLE_ARCHIVE, ErrorKind.BODY_TOO_LARGE})


@dataclass(frozen=True)
class ArchiveFile:
    """An uploaded archive on disk.

    Attributes:
        path: file in the folder of archives.
        sha256: hash of its bytes.
    """

    path: Path
    sha256: str


def archive_folder(settings: Settings) -> Path:
    """Return the folder of archives whose jobs are not over."""
    return settings.data_dir / "jobs"


def sweep_archives(service: Service) -> None:
    """Delete archives that no job needs: of interrupted uploads, and of jobs that ended while the service stopped."""
    wanted = {job.parameters.get("file") for job in service.store.jobs.unfinished()}
    for path in archive_folder(service.settings).glob("*"):
        if path.name not in wanted:
            path.unlink(missing_ok=True)


def start_archive(
    call: Call, machine: MachineRecord, options: EnrollOptions, archive: ArchiveFile, idempotency_key: str | None
) -> Job:
    """Queue the enrollment of an uploaded archive. The file belongs to the job, or is deleted.

    Raises:
        OffkeyError: the file is no archive, or has too many entries or none; the machine was deleted; too many jobs
            wait; or the key was used for another request.
    """
    try:
        with Archive(archive.path, _limits(call.service.settings)) as opened:
            if not opened.entries:
                raise OffkeyError(ErrorKind.UNREADABLE_ARCHIVE, "The archive holds no file. Put audio files into it.")
        job, is_new = _queue(call, machine, options, archive, idempotency_key)
    except BaseException:
        archive.path.unlink(missing_ok=True)
        raise
    if not is_new:
        archive.path.unlink()
    call.service.job_signals.wake()
    return job


def _queue(
    call: Call, machine: MachineRecord, options: EnrollOptions, archive: ArchiveFile, idempotency_key: str | None
) -> tuple[Job, bool]:
    """Return the job, and whether it is new: a repeated request gets the job of the first one."""
    parameters = {
        "file": archive.path.name,
        "machine_key": machine.machine_key,
        "domain": options.domain,
        "recording": options.recording,
        "trusted": options.force,
    }
    sent = [machine.machine_id, archive.sha256, *(parameters[name] for name in ("domain", "recording", "trusted"))]
    fingerprint = hashlib.sha256(json.dumps(sent).encode()).hexdigest()
    key = None if idempotency_key is None else IdempotencyKey(idempotency_key, fingerprint)
    with call.store.begin(machine) as tx:
        response = None if key is None else tx.find_response(key)
        if response is None:
            job_id = tx.add_job(JobKind.ENROLL, parameters).job_id
            if key is not None:
                tx.store_response(key, str(job_id))
        else:
            job_id = int(response)
    return job_of(call, call.store.jobs.get(job_id)), response is None


def _limits(settings: Settings) -> ArchiveLimits:
    return ArchiveLimits(
        settings.limits.max_zip_entries, settings.limits.max_body_bytes, settings.limits.max_unpacked_bytes
    )


class EnrollArchive:
    """Handles jobs of the kind `enroll`."""

    def run(self, run: JobRun) -> None:
        """Enroll batch after batch. The report of a batch commits together with its clips."""
        call, job = run.call, run.job
        with Archive(_path(run), _limits(call.service.settings)) as archive:
            with call.store.begin() as tx:
                tx.set_total(job.job_id, len(archive.entries))
            reported = call.store.jobs.reported(job.job_id)
            done = len(reported)
            rest = [entry for entry in archive.entries if entry.number not in reported]
            for batch in _batches(run, archive, rest):
                done += len(batch)
                _enroll(run, batch, done)

    def clean(self, run: JobRun, *, done: bool) -> None:
        """Delete the archive."""
        del done
        (archive_folder(run.call.service.settings) / str(run.job.parameters["file"])).unlink(missing_ok=True)


Read = tuple[ArchiveEntry, Clip | OffkeyError]


def _path(run: JobRun) -> Path:
    path = archive_folder(run.call.service.settings) / str(run.job.parameters["file"])
    if not path.is_file():  # a snapshot holds no archives
        raise OffkeyError(
            ErrorKind.UNREADABLE_ARCHIVE,
            "The archive is gone, as after a restore. Post it again; no clip is enrolled twice.",
        )
    return path


def _batches(run: JobRun, archive: Archive, entries: Sequence[ArchiveEntry]) -> Iterator[list[Read]]:
    """Yield entries that are committed together. A batch is limited in entries and in bytes."""
    batch: list[Read] = []
    size = 0
    for entry in entries:
        run.check()
        try:
            clip = Clip(entry.name, archive.read(entry), run.budget())
            batch.append((entry, clip))
            size += len(clip.data)
        except OffkeyError as error:
            if error.kind not in _ABOUT_ENTRY:
                raise
            batch.append((entry, error))
        if len(batch) == _BATCH or size >= run.call.service.settings.limits.max_body_bytes:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _enroll(run: JobRun, batch: Sequence[Read], done: int) -> None:
    clips = [clip for _, clip in batch if isinstance(clip, Clip)]
    embedded: Embedded = {}
    while True:
        with suppress(BankChangedError):  # a known clip was deleted, or the bank moved to another bundle
            _commit(run, batch, clips, embedded, done)
            return


def _commit(run: JobRun, batch: Sequence[Read], clips: Sequence[Clip], embedded: Embedded, done: int) -> None:
    call, job = run.call, run.job
    if not clips:
        with call.store.begin() as tx:
            tx.report(
                job.job_id, done, [_result(entry, error) for entry, error in batch if not isinstance(error, Clip)]
            )
        return
    given = job.parameters
    options = EnrollOptions(Domain(given["domain"]), given["recording"], force=given["trusted"])
    prepared = prepare_clips(call, str(job.machine_id), options, clips, embedded, collect_errors=True)
    check_machine_key(prepared.machine, int(given["machine_key"]))
    with call.stages.during(Stage.STORE), call.store.begin(prepared.machine) as tx:
        answer = commit_clips(call, tx, prepared)
        results = iter(answer.clips)
        entries = []
        for entry, read in batch:
            found = prepared.refused.get(read.sha256) if isinstance(read, Clip) else read
            entries.append(_result(entry, next(results) if found is None else found))
        tx.report(job.job_id, done, entries)
    count_enrolled(call, answer)


def _result(entry: ArchiveEntry, found: EnrolledClip | OffkeyError) -> JobEntry:
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
