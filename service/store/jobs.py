"""Queue jobs, read them, and store their progress and results entry by entry."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, delete, func, insert, select, update

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import UNFINISHED, EntryStatus, JobKind, JobState, Scope
from service.domain.access import Caller
from service.store.database.base import Database
from service.store.errors import translate_row_errors
from service.store.schema import job, job_entry

MAX_UNFINISHED_JOBS = 16
MAX_FINISHED_JOBS = 1_000  # older ones are deleted with their entries
RETRY_AFTER_SECONDS = 60
_MAX_DETAIL = 1_000  # characters


@dataclass(frozen=True)
class JobRecord:
    """One job. `total` is None until it is known."""

    job_id: int
    kind: JobKind
    state: JobState
    machine_id: str | None
    parameters: Mapping[str, Any]
    total: int | None
    done: int
    result: str | None
    problem: str | None
    detail: str | None
    caller: Caller
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True)
class JobEntry:
    """Result of one entry of a job."""

    number: int  # 0, 1, ... in the order of the archive
    name: str
    status: EntryStatus
    clip_id: int | None = None
    problem: str | None = None
    detail: str | None = None


class JobOverError(Exception):
    """The job was canceled, or is over for another reason; nothing was written."""


class Jobs:
    """Reads the jobs of a store, for one caller."""

    def __init__(self, database: Database, caller: Caller) -> None:
        self._database = database
        self._caller = caller

    def get(self, job_id: int) -> JobRecord:
        """Return a job of the caller. Raises `OffkeyError` (unknown job)."""
        with self._database.read() as connection:
            return _job_of(connection, self._caller, job_id)

    def page(self, *, before: int, limit: int) -> list[JobRecord]:
        """Return up to `limit` jobs of the caller whose id is less than `before`, newest first."""
        with self._database.read() as connection:
            rows = connection.execute(
                _visible(self._caller).where(job.c.job_id < before).order_by(job.c.job_id.desc()).limit(limit)
            ).mappings()
            return [_record(row) for row in rows]

    def entries(self, job_id: int, *, after: int, limit: int) -> list[JobEntry]:
        """Return up to `limit` entries of a job of the caller whose number is greater than `after`, by number.

        Raises:
            OffkeyError: unknown job.
        """
        with self._database.read() as connection:
            _job_of(connection, self._caller, job_id)
            rows = connection.execute(
                select(job_entry)
                .where(job_entry.c.job_id == job_id, job_entry.c.number > after)
                .order_by(job_entry.c.number)
                .limit(limit)
            ).mappings()
            return [_entry(row) for row in rows]

    def counts(self, job_id: int) -> dict[EntryStatus, int]:
        """Return the number of a job's entries by result."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(job_entry.c.status, func.count())
                .where(job_entry.c.job_id == job_id)
                .group_by(job_entry.c.status)
                .order_by(job_entry.c.status)
            )
            return {EntryStatus(status): count for status, count in rows}

    def unfinished(self) -> list[JobRecord]:
        """Return all jobs that wait or run, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(job).where(job.c.state.in_(UNFINISHED)).order_by(job.c.job_id)).mappings()
            return [_record(row) for row in rows]

    def states(self) -> dict[str, int]:
        """Return the number of jobs by state."""
        with self._database.read() as connection:
            rows = connection.execute(select(job.c.state, func.count().label("jobs")).group_by(job.c.state))
            return {row.state: row.jobs for row in rows}

    def reported(self, job_id: int) -> set[int]:
        """Return the numbers of the entries of a job that have a result."""
        with self._database.read() as connection:
            return set(connection.execute(select(job_entry.c.number).where(job_entry.c.job_id == job_id)).scalars())


def add_job(
    connection: Connection, caller: Caller, kind: JobKind, machine_id: str | None, parameters: Mapping[str, Any]
) -> JobRecord:
    """Queue a job. Raises `OffkeyError` (overloaded): too many jobs are not finished."""
    waiting = connection.execute(select(func.count()).select_from(job).where(job.c.state.in_(UNFINISHED))).scalar_one()
    if waiting >= MAX_UNFINISHED_JOBS:
        raise OffkeyError(
            ErrorKind.OVERLOADED,
            f"{waiting} jobs are not finished, which is the limit. Wait for one (GET /jobs), or cancel it.",
            retry_after=RETRY_AFTER_SECONDS,
        )
    job_id = connection.execute(
        insert(job)
        .values(
            kind=kind.value,
            state=JobState.QUEUED.value,
            machine_id=machine_id,
            parameters=json.dumps(parameters),
            who=caller.name,
            key_id=caller.key_id,
            machine_prefix=caller.machine_prefix,
            request_id=caller.request_id,
            created_at=datetime.now(UTC),
        )
        .returning(job.c.job_id)
    ).scalar_one()
    _delete_old(connection)
    return _job(connection, job_id)


def cancel_job(connection: Connection, caller: Caller, job_id: int) -> JobRecord:
    """Cancel a job of the caller. Raises `OffkeyError`: it is unknown, or over."""
    found = _job_of(connection, caller, job_id)
    if found.state not in UNFINISHED:
        raise OffkeyError(ErrorKind.JOB_OVER, f"Job {job_id} is already {found.state}.", state=found.state.value)
    _finish(connection, job_id, JobState.CANCELED)
    return _job(connection, job_id)


@translate_row_errors()
def next_job(connection: Connection) -> JobRecord | None:
    """Return the job to run and mark it as running: an interrupted one, otherwise the first in the queue."""
    row = (
        connection.execute(
            select(job)
            .where(job.c.state.in_(UNFINISHED))
            .order_by(job.c.state != JobState.RUNNING.value, job.c.job_id)
            .limit(1)
        )
        .mappings()
        .one_or_none()
    )
    if row is None:
        return None
    connection.execute(
        update(job)
        .where(job.c.job_id == row["job_id"])
        .values(state=JobState.RUNNING.value, started_at=func.coalesce(job.c.started_at, datetime.now(UTC)))
    )
    return _job(connection, row["job_id"])


def set_total(connection: Connection, job_id: int, total: int) -> None:
    """Set the amount of work of a job. Raises `JobOverError`."""
    _check_running(connection, job_id)
    connection.execute(update(job).where(job.c.job_id == job_id).values(total=total))


def report(connection: Connection, job_id: int, done: int, entries: Sequence[JobEntry]) -> None:
    """Store the progress of a job and the results of entries. Raises `JobOverError`."""
    _check_running(connection, job_id)
    connection.execute(update(job).where(job.c.job_id == job_id).values(done=done))
    if entries:
        rows = [{**asdict(one), "job_id": job_id, "detail": _shortened(one.detail)} for one in entries]
        connection.execute(insert(job_entry), rows)


def finish_job(
    connection: Connection, job_id: int, state: JobState, *, result: str | None, error: OffkeyError | None
) -> None:
    """Store the end of a job. Raises `JobOverError` if it had ended before."""
    _check_running(connection, job_id)
    _finish(connection, job_id, state, result=result, error=error)


def _shortened(detail: str | None) -> str | None:
    return None if detail is None else detail[:_MAX_DETAIL]


def _check_running(connection: Connection, job_id: int) -> None:
    state = connection.execute(select(job.c.state).where(job.c.job_id == job_id).with_for_update()).scalar_one_or_none()
    if state != JobState.RUNNING:
        raise JobOverError


def _finish(
    connection: Connection,
    job_id: int,
    state: JobState,
    *,
    result: str | None = None,
    error: OffkeyError | None = None,
) -> None:
    connection.execute(
        update(job)
        .where(job.c.job_id == job_id)
        .values(
            state=state.value,
            ended_at=datetime.now(UTC),
            result=result,
            problem=None if error is None else error.kind.value,
            detail=None if error is None else _shortened(error.detail),
        )
    )


def _delete_old(connection: Connection) -> None:
    newest = (
        select(job.c.job_id)
        .where(job.c.state.not_in(UNFINISHED))
        .order_by(job.c.job_id.desc())
        .limit(MAX_FINISHED_JOBS)
    )
    connection.execute(delete(job).where(job.c.state.not_in(UNFINISHED), job.c.job_id.not_in(newest)))


def _visible(caller: Caller) -> Select[Any]:
    """Return the query of the jobs that a caller may see.

    Jobs about machines outside the key's prefix are hidden, and so are jobs that only administrators create.
    """
    query = select(job)
    prefix = caller.machine_prefix
    if Scope.ADMIN not in caller.scopes:
        query = query.where(job.c.kind == JobKind.ENROLL.value)
    if prefix is not None:
        query = query.where(func.substr(job.c.machine_id, 1, len(prefix)) == prefix)
    return query


@translate_row_errors()
def _job_of(connection: Connection, caller: Caller, job_id: int) -> JobRecord:
    row = connection.execute(_visible(caller).where(job.c.job_id == job_id)).mappings().one_or_none()
    if row is None:
        raise OffkeyError(ErrorKind.UNKNOWN_JOB, f"There is no job {job_id}. GET /jobs lists them.")
    return _record(row)


@translate_row_errors()
def _job(connection: Connection, job_id: int) -> JobRecord:
    return _record(connection.execute(select(job).where(job.c.job_id == job_id)).mappings().one())


def _record(row: RowMapping) -> JobRecord:
    return JobRecord(
        job_id=row["job_id"],
        kind=JobKind(row["kind"]),
        state=JobState(row["state"]),
        machine_id=row["machine_id"],
        parameters=json.loads(row["parameters"]),
        total=row["total"],
        done=row["done"],
        result=row["result"],
        problem=row["problem"],
        detail=row["detail"],
        caller=Caller(row["who"], row["key_id"], machine_prefix=row["machine_prefix"], request_id=row["request_id"]),
        created_at=row["created_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
    )


def _entry(row: RowMapping) -> JobEntry:
    return JobEntry(
        row["number"], row["name"], EntryStatus(row["status"]), row["clip_id"], row["problem"], row["detail"]
    )
