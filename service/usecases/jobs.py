"""Show, list and cancel jobs."""

from offkey.schemas import Job, JobEntry, JobEntryList, JobList
from service.store.jobs import JobRecord
from service.usecases.service import Call


def job_of(call: Call, record: JobRecord) -> Job:
    """Return the answer about a job."""
    return Job(
        job_id=record.job_id,
        kind=record.kind,
        state=record.state,
        machine_id=record.machine_id,
        total=record.total,
        done=record.done,
        entries=call.store.jobs.counts(record.job_id),
        result=record.result,
        problem=record.problem,
        detail=record.detail,
        who=record.caller.name,
        created_at=record.created_at,
        started_at=record.started_at,
        ended_at=record.ended_at,
    )


def get_job(call: Call, job_id: int) -> Job:
    """Return a job of the caller. Raises `OffkeyError` (unknown job)."""
    return job_of(call, call.store.jobs.get(job_id))


def list_jobs(call: Call, before: int, limit: int) -> JobList:
    """Return a page of the caller's jobs, the newest first."""
    records = call.store.jobs.page(before=before, limit=limit)
    return JobList(
        jobs=[job_of(call, record) for record in records],
        next_before=records[-1].job_id if len(records) == limit else None,
    )


def list_entries(call: Call, job_id: int, after: int, limit: int) -> JobEntryList:
    """Return a page of the results of a job's entries. Raises `OffkeyError` (unknown job)."""
    found = call.store.jobs.entries(job_id, after=after, limit=limit)
    return JobEntryList(
        entries=[JobEntry.model_validate(entry) for entry in found],
        next_after=found[-1].number if len(found) == limit else None,
    )


def cancel_job(call: Call, job_id: int) -> Job:
    """Cancel a job of the caller. What it already did stays. Raises `OffkeyError`: unknown job, or it is over."""
    with call.store.begin() as tx:
        record = tx.cancel_job(job_id)
    call.service.job_signals.cancel(record)
    return job_of(call, record)
