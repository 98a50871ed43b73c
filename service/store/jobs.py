"""Jobs: asked for, worked off one after another, reported entry by entry."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, delete, func, insert, select, update

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import UNFINISHED, EntryStatus, JobKind, JobState, Scope
from service.domain.access import Caller
from service.store.database.base import Transactions
from service.store.idempotency import AnsweredError, Once, earlier_answer, keep_answer
from service.store.records import MachineRecord
from service.store.schema import job, job_entry

MAX_UNFINISHED_JOBS = 16
MAX_FINISHED_JOBS = 1_000  # older ones are forgotten, with their entries
RETRY_AFTER_SECONDS = 60
_DETAIL = 1_000  # characters that are kept of one


@dataclass(frozen=True)
class JobRecord:
    """One job. `total` is None until it is known."""

    job_id: int
    kind: JobKind
    state: JobState
    machine_id: str | None
    asked: Mapping[str, Any]
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
    """What became of one entry."""

    number: int  # 0, 1, ... in the order of the archive
    name: str
    status: EntryStatus
    clip_id: int | None = None
    problem: str | None = None
    detail: str | None = None


@dataclass(frozen=True)
class Step:
    """How far a job has come: how much of its total is done, and what became of entries since the step before."""

    job_id: int
    done: int
    entries: Sequence[JobEntry] = ()


class JobOverError(Exception):
    """The job was canceled, or is over for another reason; nothing was written."""


class Jobs:
    """The jobs of a store, for one caller."""

    def __init__(self, transactions: Transactions, caller: Caller) -> None:
        self._read, self._write = transactions.read, transactions.write
        self._caller = caller

    def add(
        self,
        kind: JobKind,
        machine: MachineRecord | None,
        asked: Mapping[str, Any],
        once: tuple[str, str] | None = None,
    ) -> JobRecord:
        """Put a job behind those that wait.

        Args:
            kind: what it is to do.
            machine: for which machine; None: for the whole service.
            asked: what its kind needs to know.
            once: `Idempotency-Key` and fingerprint of the request; the answer is the number of the job.

        Raises:
            AnsweredError: the request was sent before.
            OffkeyError: too many wait, or the key came with another request.
        """
        with self._write() as connection:
            if once and (answer := earlier_answer(connection, *once)) is not None:
                raise AnsweredError(answer)
            waiting = connection.execute(
                select(func.count()).select_from(job).where(job.c.state.in_(UNFINISHED))
            ).scalar_one()
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
                    machine_id=None if machine is None else machine.machine_id,
                    asked=json.dumps(asked),
                    who=self._caller.name,
                    key_id=self._caller.key_id,
                    machine_prefix=self._caller.machine_prefix,
                    request_id=self._caller.request_id,
                    created_at=datetime.now(UTC),
                )
                .returning(job.c.job_id)
            ).scalar_one()
            if once and machine is not None:
                keep_answer(connection, Once(*once, lambda *_: str(job_id)), machine.machine_key, str(job_id))
            _forget_old(connection)
            return _job(connection, job_id)

    def get(self, job_id: int) -> JobRecord:
        """Return a job of the caller's. Raises `OffkeyError` (unknown job)."""
        with self._read() as connection:
            return self._own(connection, job_id)

    def page(self, *, before: int, limit: int) -> list[JobRecord]:
        """Return up to `limit` jobs of the caller's whose id is less than `before`, the newest first."""
        with self._read() as connection:
            rows = connection.execute(
                self._visible().where(job.c.job_id < before).order_by(job.c.job_id.desc()).limit(limit)
            ).mappings()
            return [_record(row) for row in rows]

    def entries(self, job_id: int, *, after: int, limit: int) -> list[JobEntry]:
        """Return up to `limit` entries of a job of the caller's whose number is greater than `after`, by number.

        Raises:
            OffkeyError: unknown job.
        """
        with self._read() as connection:
            self._own(connection, job_id)
            rows = connection.execute(
                select(job_entry)
                .where(job_entry.c.job_id == job_id, job_entry.c.number > after)
                .order_by(job_entry.c.number)
                .limit(limit)
            ).mappings()
            return [_entry(row) for row in rows]

    def counts(self, job_id: int) -> dict[EntryStatus, int]:
        """How many entries became what."""
        with self._read() as connection:
            rows = connection.execute(
                select(job_entry.c.status, func.count())
                .where(job_entry.c.job_id == job_id)
                .group_by(job_entry.c.status)
                .order_by(job_entry.c.status)
            )
            return {EntryStatus(status): count for status, count in rows}

    def cancel(self, job_id: int) -> JobRecord:
        """End a job of the caller's: when this returns, it changes nothing any more.

        Raises:
            OffkeyError: unknown job, or it is over.
        """
        with self._write() as connection:
            found = self._own(connection, job_id)
            if found.state not in UNFINISHED:
                raise OffkeyError(
                    ErrorKind.JOB_OVER, f"Job {job_id} is {found.state} already.", state=found.state.value
                )
            _end(connection, job_id, JobState.CANCELED)
            return _job(connection, job_id)

    # -- for who works them off

    def next(self) -> JobRecord | None:
        """The job to be worked on: one that was interrupted, or else the first that waits. It is running now."""
        with self._write() as connection:
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

    def unfinished(self) -> list[JobRecord]:
        """All jobs that wait or run, the first one first."""
        with self._read() as connection:
            rows = connection.execute(select(job).where(job.c.state.in_(UNFINISHED)).order_by(job.c.job_id)).mappings()
            return [_record(row) for row in rows]

    def states(self) -> dict[str, int]:
        """How many jobs are in which state."""
        with self._read() as connection:
            rows = connection.execute(select(job.c.state, func.count().label("jobs")).group_by(job.c.state))
            return {row.state: row.jobs for row in rows}

    def reported(self, job_id: int) -> set[int]:
        """The numbers of the entries that are done with."""
        with self._read() as connection:
            return set(connection.execute(select(job_entry.c.number).where(job_entry.c.job_id == job_id)).scalars())

    def plan(self, job_id: int, total: int) -> None:
        """Say how much there is to do. Raises `JobOverError`."""
        with self._write() as connection:
            _check_running(connection, job_id)
            connection.execute(update(job).where(job.c.job_id == job_id).values(total=total))

    def take(self, step: Step) -> None:
        """Note how far a job has come. Raises `JobOverError`."""
        with self._write() as connection:
            take_step(connection, step)

    def end(self, job_id: int, state: JobState, *, result: str | None = None, error: OffkeyError | None = None) -> None:
        """Say how a job ended. Raises `JobOverError` if it had ended before."""
        with self._write() as connection:
            _check_running(connection, job_id)
            _end(connection, job_id, state, result=result, error=error)

    def _own(self, connection: Connection, job_id: int) -> JobRecord:
        row = connection.execute(self._visible().where(job.c.job_id == job_id)).mappings().one_or_none()
        if row is None:
            raise OffkeyError(ErrorKind.UNKNOWN_JOB, f"There is no job {job_id}. GET /jobs lists them.")
        return _record(row)

    def _visible(self) -> Select[Any]:
        """Of machines that the caller's key is for; what but an administrator asks for, others do not see."""
        query = select(job)
        prefix = self._caller.machine_prefix
        if Scope.ADMIN not in self._caller.scopes:
            query = query.where(job.c.kind == JobKind.ENROLL.value)
        if prefix is not None:
            query = query.where(func.substr(job.c.machine_id, 1, len(prefix)) == prefix)
        return query


def take_step(connection: Connection, step: Step) -> None:
    """As `Jobs.take`, in the transaction of what was done. Raises `JobOverError`, which must undo it."""
    _check_running(connection, step.job_id)
    connection.execute(update(job).where(job.c.job_id == step.job_id).values(done=step.done))
    if step.entries:
        rows = [{**asdict(one), "job_id": step.job_id, "detail": _short(one.detail)} for one in step.entries]
        connection.execute(insert(job_entry), rows)


def _short(detail: str | None) -> str | None:
    return None if detail is None else detail[:_DETAIL]


def _check_running(connection: Connection, job_id: int) -> None:
    state = connection.execute(select(job.c.state).where(job.c.job_id == job_id)).scalar_one_or_none()
    if state != JobState.RUNNING:
        raise JobOverError


def _end(
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
            detail=None if error is None else _short(error.detail),
        )
    )


def _forget_old(connection: Connection) -> None:
    kept = (
        select(job.c.job_id)
        .where(job.c.state.not_in(UNFINISHED))
        .order_by(job.c.job_id.desc())
        .limit(MAX_FINISHED_JOBS)
    )
    connection.execute(delete(job).where(job.c.state.not_in(UNFINISHED), job.c.job_id.not_in(kept)))


def _job(connection: Connection, job_id: int) -> JobRecord:
    return _record(connection.execute(select(job).where(job.c.job_id == job_id)).mappings().one())


def _record(row: RowMapping) -> JobRecord:
    def moment(name: str) -> datetime | None:
        found: datetime | None = row[name]
        return None if found is None else found.replace(tzinfo=UTC)

    created_at = moment("created_at")
    assert created_at is not None
    return JobRecord(
        job_id=row["job_id"],
        kind=JobKind(row["kind"]),
        state=JobState(row["state"]),
        machine_id=row["machine_id"],
        asked=json.loads(row["asked"]),
        total=row["total"],
        done=row["done"],
        result=row["result"],
        problem=row["problem"],
        detail=row["detail"],
        caller=Caller(row["who"], row["key_id"], machine_prefix=row["machine_prefix"], request_id=row["request_id"]),
        created_at=created_at,
        started_at=moment("started_at"),
        ended_at=moment("ended_at"),
    )


def _entry(row: RowMapping) -> JobEntry:
    return JobEntry(
        row["number"], row["name"], EntryStatus(row["status"]), row["clip_id"], row["problem"], row["detail"]
    )
