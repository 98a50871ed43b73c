"""`/machines` and what lies below it."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response, status

from offkey.schemas import (
    ClipList,
    DriftReport,
    Machine,
    MachineList,
    MachineSettings,
    NoiseList,
    Threshold,
    ThresholdSettings,
)
from service.http.auth import ADMIN, ENROLL, SCORE, AuthenticatedRoute
from service.http.dependencies import MAX_KEY, ContextOf, LightPool, MachineIdPath, PageSize, WorkPoolOf, problems
from service.usecases import machines as usecase
from service.usecases.drift import get_drift
from service.usecases.noise import delete_noise, list_noise
from service.usecases.threshold import get_threshold

router = APIRouter(prefix="/machines", tags=["machines"], route_class=AuthenticatedRoute)


@router.get("", dependencies=[SCORE], responses=problems(422))
async def list_machines(
    context: ContextOf,
    light_pool: LightPool,
    after: Annotated[str, Query(max_length=64, description="machine id behind which the page begins")] = "",
    limit: PageSize = 100,
) -> MachineList:
    """List machines by id."""
    return await light_pool.run(usecase.list_machines, context, after, limit)


@router.put(
    "/{machine_id}",
    dependencies=[ENROLL],
    responses={201: {"model": Machine, "description": "The machine was created"}, **problems(422, 507)},
)
async def put_machine(
    response: Response,
    context: ContextOf,
    workers: WorkPoolOf,
    machine_id: MachineIdPath,
    settings: MachineSettings | None = None,
) -> Machine:
    """Create a machine, or describe it anew; its bank and its threshold stay."""
    machine, created = await workers.run(usecase.put_machine, context, machine_id, settings or MachineSettings())
    if created:
        response.status_code = status.HTTP_201_CREATED
    return machine


@router.get("/{machine_id}", dependencies=[SCORE], responses=problems(404, 422))
async def get_machine(context: ContextOf, workers: WorkPoolOf, machine_id: MachineIdPath) -> Machine:
    """Show a machine, its bank and its threshold."""
    return await workers.run(usecase.get_machine, context, machine_id)


@router.delete(
    "/{machine_id}",
    dependencies=[ADMIN],
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problems(404, 422, 507),
)
async def delete_machine(context: ContextOf, workers: WorkPoolOf, machine_id: MachineIdPath) -> None:
    """Delete a machine and its bank."""
    await workers.run(usecase.delete_machine, context, machine_id)


@router.get("/{machine_id}/threshold", dependencies=[SCORE], responses=problems(404, 409, 422))
async def show_threshold(context: ContextOf, workers: WorkPoolOf, machine_id: MachineIdPath) -> Threshold:
    """Show a machine's decision threshold and what it promises."""
    return await workers.run(get_threshold, context, machine_id)


@router.put("/{machine_id}/threshold", dependencies=[ADMIN], responses=problems(404, 422, 507))
async def change_threshold(
    context: ContextOf, workers: WorkPoolOf, machine_id: MachineIdPath, settings: ThresholdSettings
) -> Machine:
    """Choose how a machine's decision threshold comes about. It counts at once; nothing is enrolled again."""
    return await workers.run(usecase.put_threshold, context, machine_id, settings)


@router.delete("/{machine_id}/threshold", dependencies=[ADMIN], responses=problems(404, 422, 507))
async def reset_threshold(context: ContextOf, workers: WorkPoolOf, machine_id: MachineIdPath) -> Machine:
    """Go back to the conformal rule at the service's false-alarm rate."""
    return await workers.run(usecase.put_threshold, context, machine_id, ThresholdSettings())


@router.get("/{machine_id}/drift", dependencies=[SCORE], responses=problems(404, 409, 422, 507))
async def show_drift(context: ContextOf, workers: WorkPoolOf, machine_id: MachineIdPath) -> DriftReport:
    """Tell whether clips scored lately still score as the enrolled ones do among each other, and what to do."""
    return await workers.run(get_drift, context, machine_id)


@router.get("/{machine_id}/clips", dependencies=[SCORE], responses=problems(404, 422))
async def list_clips(
    context: ContextOf,
    light_pool: LightPool,
    machine_id: MachineIdPath,
    after: Annotated[int, Query(ge=0, le=MAX_KEY, description="clip id behind which the page begins")] = 0,
    limit: PageSize = 100,
) -> ClipList:
    """List the enrolled clips of a machine by id."""
    return await light_pool.run(usecase.list_clips, context, machine_id, after, limit)


@router.delete("/{machine_id}/clips/{clip_id}", dependencies=[ENROLL], responses=problems(404, 422, 507))
async def delete_clip(
    context: ContextOf,
    workers: WorkPoolOf,
    machine_id: MachineIdPath,
    clip_id: Annotated[int, Path(ge=1, le=MAX_KEY)],
) -> Machine:
    """Take a clip out of a machine's bank."""
    return await workers.run(usecase.delete_clip, context, machine_id, clip_id)


@router.get("/{machine_id}/noise", dependencies=[SCORE], responses=problems(404, 422))
async def show_noise(context: ContextOf, light_pool: LightPool, machine_id: MachineIdPath) -> NoiseList:
    """List the clips of a machine's background."""
    return await light_pool.run(list_noise, context, machine_id)


@router.delete(
    "/{machine_id}/noise/{noise_id}",
    dependencies=[ENROLL],
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problems(404, 422, 507),
)
async def forget_noise(
    context: ContextOf,
    workers: WorkPoolOf,
    machine_id: MachineIdPath,
    noise_id: Annotated[int, Path(ge=1, le=MAX_KEY)],
) -> None:
    """Forget a clip of a machine's background."""
    await workers.run(delete_noise, context, machine_id, noise_id)
