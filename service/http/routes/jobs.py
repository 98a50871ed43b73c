"""`/jobs`, `/snapshots`, `/models` and `/reembed`: work that outlasts a request, and what comes of it."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response, status
from fastapi.responses import FileResponse

from offkey.schemas import Job, JobEntryList, JobList, ModelList, SnapshotList
from service.http.auth import ADMIN, ENROLL, SCORE, AuthenticatedRoute
from service.http.dependencies import (
    MAX_KEY,
    ContextOf,
    LightPool,
    MachineIdQuery,
    PageSize,
    RunnerOf,
    WorkPoolOf,
    problems,
)
from service.jobs import snapshots
from service.jobs.reembed import start_reembedding
from service.jobs.runner import Runner
from service.usecases import jobs as answers
from service.usecases.service import Context

router = APIRouter(tags=["jobs"], route_class=AuthenticatedRoute)

JobId = Annotated[int, Path(ge=1, le=MAX_KEY)]
SnapshotName = Annotated[str, Path(max_length=100)]


@router.get("/jobs", dependencies=[ENROLL], responses=problems(422))
async def list_jobs(
    context: ContextOf,
    light_pool: LightPool,
    before: Annotated[int, Query(ge=1, le=MAX_KEY, description="job id before which the page begins")] = MAX_KEY,
    limit: PageSize = 100,
) -> JobList:
    """List jobs, the newest first: those about machines of the key; snapshots and moves for administrators."""
    return await light_pool.run(answers.list_jobs, context, before, limit)


@router.get("/jobs/{job_id}", dependencies=[ENROLL], responses=problems(404, 422))
async def show_job(context: ContextOf, light_pool: LightPool, job_id: JobId) -> Job:
    """Tell how far a job is."""
    return await light_pool.run(answers.get_job, context, job_id)


@router.get("/jobs/{job_id}/entries", dependencies=[ENROLL], responses=problems(404, 422))
async def list_entries(
    context: ContextOf,
    light_pool: LightPool,
    job_id: JobId,
    after: Annotated[int, Query(ge=-1, le=MAX_KEY, description="number behind which the page begins")] = -1,
    limit: PageSize = 100,
) -> JobEntryList:
    """Tell what became of each entry that is done."""
    return await light_pool.run(answers.list_entries, context, job_id, after, limit)


@router.delete("/jobs/{job_id}", dependencies=[ENROLL], responses=problems(404, 409, 422, 507))
async def cancel_job(context: ContextOf, workers: WorkPoolOf, runner: RunnerOf, job_id: JobId) -> Job:
    """Cancel a job: it changes nothing more. What it did already stays."""
    return await workers.run(answers.cancel_job, context, runner, job_id)


@router.post("/snapshots", dependencies=[ADMIN], status_code=status.HTTP_202_ACCEPTED, responses=problems(409, 507))
async def start_snapshot(response: Response, context: ContextOf, workers: WorkPoolOf, runner: RunnerOf) -> Job:
    """Have a snapshot made: all data in one file, as of one moment. The job's `result` names it."""
    return _located(response, await workers.run(_snapshot, context, runner))


@router.get("/snapshots", dependencies=[ADMIN])
async def list_snapshots(context: ContextOf, light_pool: LightPool) -> SnapshotList:
    """List the snapshots that are kept."""
    return await light_pool.run(snapshots.list_snapshots, context)


@router.get(
    "/snapshots/{name}",
    dependencies=[ADMIN],
    response_class=FileResponse,
    responses={200: {"content": {"application/x-tar": {}}}, **problems(404, 422)},
)
async def fetch_snapshot(context: ContextOf, light_pool: LightPool, name: SnapshotName) -> FileResponse:
    """Fetch a snapshot. `offkey verify` checks the file, `offkey restore` brings it back."""
    path = await light_pool.run(snapshots.snapshot_path, context, name)
    return FileResponse(path, media_type="application/x-tar", filename=name)


@router.delete(
    "/snapshots/{name}",
    dependencies=[ADMIN],
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problems(404, 422),
)
async def delete_snapshot(context: ContextOf, light_pool: LightPool, name: SnapshotName) -> None:
    """Delete a snapshot."""
    await light_pool.run(snapshots.delete_snapshot, context, name)


@router.get("/models", dependencies=[SCORE])
async def list_models(context: ContextOf, light_pool: LightPool) -> ModelList:
    """Tell which bundles serve, and how many banks are of which."""
    return await light_pool.run(answers.list_models, context)


@router.post("/reembed", dependencies=[ADMIN], status_code=status.HTTP_202_ACCEPTED, responses=problems(404, 422, 507))
async def reembed(
    response: Response, context: ContextOf, workers: WorkPoolOf, runner: RunnerOf, machine_id: MachineIdQuery = None
) -> Job:
    """Have banks moved to the bundle that serves, from the audio that was kept: one machine, or all that need it."""
    return _located(response, await workers.run(_reembed, context, runner, machine_id))


def _snapshot(context: Context, runner: Runner) -> Job:
    job = answers.job_of(context, snapshots.start_snapshot(context))
    runner.wake()
    return job


def _reembed(context: Context, runner: Runner, machine_id: str | None) -> Job:
    job = answers.job_of(context, start_reembedding(context, machine_id))
    runner.wake()
    return job


def _located(response: Response, job: Job) -> Job:
    response.headers["Location"] = f"/jobs/{job.job_id}"
    return job
