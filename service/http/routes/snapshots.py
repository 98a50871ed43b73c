"""`/snapshots`: copies of all data, as of one moment."""

from typing import Annotated

from fastapi import APIRouter, Path, Response, status
from fastapi.responses import FileResponse

from offkey.schemas import Job, SnapshotList
from service.http.auth import ADMIN, AuthenticatedRoute
from service.http.dependencies import CallOf, problems
from service.jobs import snapshots

router = APIRouter(prefix="/snapshots", tags=["jobs"], route_class=AuthenticatedRoute)

SnapshotName = Annotated[str, Path(max_length=100)]


@router.post("", dependencies=[ADMIN], status_code=status.HTTP_202_ACCEPTED, responses=problems(409, 507))
async def start_snapshot(response: Response, call: CallOf) -> Job:
    """Start a snapshot: all data in one file, as of one moment. The `result` of the job is its name."""
    job = await call.run(snapshots.start_snapshot)
    response.headers["Location"] = f"/jobs/{job.job_id}"
    return job


@router.get("", dependencies=[ADMIN])
async def list_snapshots(call: CallOf) -> SnapshotList:
    """List the stored snapshots."""
    return await call.run_light(snapshots.list_snapshots)


@router.get(
    "/{name}",
    dependencies=[ADMIN],
    response_class=FileResponse,
    responses={200: {"content": {"application/x-tar": {}}}, **problems(404, 422)},
)
async def download_snapshot(call: CallOf, name: SnapshotName) -> FileResponse:
    """Download a snapshot. `offkey verify` checks the file, `offkey restore` restores it."""
    path = await call.run_light(snapshots.snapshot_path, name)
    return FileResponse(path, media_type="application/x-tar", filename=name)


@router.delete(
    "/{name}",
    dependencies=[ADMIN],
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problems(404, 422),
)
async def delete_snapshot(call: CallOf, name: SnapshotName) -> None:
    """Delete a snapshot."""
    await call.run_light(snapshots.delete_snapshot, name)
