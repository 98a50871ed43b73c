"""What is told of jobs, and of the bundles that they move banks between."""

from offkey.schemas import Job, JobEntry, JobEntryList, JobList, Model, ModelList
from service.jobs.runner import Runner
from service.store.jobs import JobRecord
from service.usecases.service import Context


def job_of(context: Context, record: JobRecord) -> Job:
    """A job as it is answered."""
    return Job(
        job_id=record.job_id,
        kind=record.kind,
        state=record.state,
        machine_id=record.machine_id,
        total=record.total,
        done=record.done,
        entries=context.store.jobs.counts(record.job_id),
        result=record.result,
        problem=record.problem,
        detail=record.detail,
        who=record.caller.name,
        created_at=record.created_at,
        started_at=record.started_at,
        ended_at=record.ended_at,
    )


def get_job(context: Context, job_id: int) -> Job:
    """A job of the caller's. Raises `OffkeyError` (unknown job)."""
    return job_of(context, context.store.jobs.get(job_id))


def list_jobs(context: Context, before: int, limit: int) -> JobList:
    """A page of the caller's jobs, the newest first."""
    records = context.store.jobs.page(before=before, limit=limit)
    return JobList(
        jobs=[job_of(context, record) for record in records],
        next_before=records[-1].job_id if len(records) == limit else None,
    )


def list_entries(context: Context, job_id: int, after: int, limit: int) -> JobEntryList:
    """A page of what became of a job's entries. Raises `OffkeyError` (unknown job)."""
    found = context.store.jobs.entries(job_id, after=after, limit=limit)
    return JobEntryList(
        entries=[JobEntry.model_validate(entry) for entry in found],
        next_after=found[-1].number if len(found) == limit else None,
    )


def cancel_job(context: Context, runner: Runner, job_id: int) -> Job:
    """End a job of the caller's; what it did already stays. Raises `OffkeyError`: unknown job, or it is over."""
    record = context.store.jobs.cancel(job_id)
    runner.canceled(record)
    return job_of(context, record)


def list_models(context: Context) -> ModelList:
    """The bundles that serve, and what else banks are made of."""
    stored = {one.embedding_space_id: one for one in context.store.reembedding.spaces()}
    serving = {encoder.embedding_space_id: encoder for encoder in context.encoders}
    models = []
    for space in [*serving, *(other for other in stored if other not in serving)]:
        banks, encoder = stored.get(space), serving.get(space)
        models.append(
            Model(
                bundle=None if encoder is None else encoder.name,
                embedding_space_id=space,
                serves=encoder is not None,
                current=space == context.encoders.current.embedding_space_id,
                machines=0 if banks is None else banks.machines,
                clips=0 if banks is None else banks.clips,
                clips_without_audio=0 if banks is None else banks.clips_without_audio,
            )
        )
    return ModelList(models=models)
