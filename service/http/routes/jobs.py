"""`/jobs`: work that outlasts a request."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from offkey.schemas import Job, JobEntryList, JobList
from service.http.auth import ENROLL, AuthenticatedRoute
from service.http.dependencies import MAX_KEY, CallOf, PageSize, problems
from service.usecases import jobs as usecase

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=AuthenticatedRoute)

JobId = Annotated[int, Path(ge=1, le=MAX_KEY)]


@router.get("", dependencies=[ENROLL], responses=problems(422))
async def list_jobs(
    call: CallOf,
    before: Annotated[int, Query(ge=1, le=MAX_KEY, description="job id at which the page ends")] = MAX_KEY,
    limit: PageSize = 100,
) -> JobList:
    """List jobs, newest first.

    A key sees jobs about its machines. Snapshots and moves to another bundle are shown to administrators.
    """
    return await call.run_light(usecase.list_jobs, before, limit)


@router.get("/{job_id}", dependencies=[ENROLL], responses=problems(404, 422))
async def show_job(call: CallOf, job_id: JobId) -> Job:
    """Show the progress of a job."""
    return await call.run_light(usecase.get_job, job_id)


@router.get("/{job_id}/entries", dependencies=[ENROLL], responses=problems(404, 422))
async def list_entries(
    call: CallOf,
    job_id: JobId,
    after: Annotated[int, Query(ge=-1, le=MAX_KEY, description="entry number after which the page begins")] = -1,
    limit: PageSize = 100,
) -> JobEntryList:
    """List the results of the entries that are done."""
    return await call.run_light(usecase.list_entries, job_id, after, limit)


@router.delete("/{job_id}", dependencies=[ENROLL], responses=problems(404, 409, 422, 507))
async def cancel_job(call: CallOf, job_id: JobId) -> Job:
    """Cancel a job: it changes nothing more. What it already did stays."""
    return await call.run(usecase.cancel_job, job_id)
