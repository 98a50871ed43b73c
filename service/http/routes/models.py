"""`/models` and `/reembed`: the bundles that serve, and moving banks between them."""

from fastapi import APIRouter, Response, status

from offkey.schemas import Job, ModelList
from service.http.auth import ADMIN, SCORE, AuthenticatedRoute
from service.http.dependencies import CallOf, MachineIdQuery, problems
from service.jobs.reembed import start_reembedding
from service.usecases.models import list_models

router = APIRouter(tags=["jobs"], route_class=AuthenticatedRoute)


@router.get("/models", dependencies=[SCORE])
async def show_models(call: CallOf) -> ModelList:
    """List the bundles that serve, and how many banks each of them made."""
    return await call.run_light(list_models)


@router.post("/reembed", dependencies=[ADMIN], status_code=status.HTTP_202_ACCEPTED, responses=problems(404, 422, 507))
async def reembed(response: Response, call: CallOf, machine_id: MachineIdQuery = None) -> Job:
    """Move banks to the current bundle from the stored audio: one machine, or all that need it."""
    job = await call.run(start_reembedding, machine_id)
    response.headers["Location"] = f"/jobs/{job.job_id}"
    return job
