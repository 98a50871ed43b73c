"""`/machines` and the resources below it."""

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
from service.http.dependencies import MAX_KEY, CallOf, MachineIdPath, PageSize, problems
from service.usecases import machines as usecase
from service.usecases.drift import get_drift
from service.usecases.noise import delete_noise, list_noise
from service.usecases.threshold import get_threshold

router = APIRouter(prefix="/machines", tags=["machines"], route_class=AuthenticatedRoute)


@router.get("", dependencies=[SCORE], responses=problems(422))
async def list_machines(
    call: CallOf,
    after: Annotated[str, Query(max_length=64, description="machine id after which the page begins")] = "",
    limit: PageSize = 100,
) -> MachineList:
    """List machines by id."""
    return await call.run_light(usecase.list_machines, after, limit)


@router.put(
    "/{machine_id}",
    dependencies=[ENROLL],
    responses={201: {"model": Machine, "description": "The machine was created"}, **problems(413, 422, 507)},
)
async def put_machine(
    response: Response,
    call: CallOf,
    machine_id: MachineIdPath,
    settings: MachineSettings | None = None,
) -> Machine:
    """Create a machine, or change its description. Its bank and its threshold stay."""
    machine, created = await call.run(usecase.put_machine, machine_id, settings or MachineSettings())
    if created:
        response.status_code = status.HTTP_201_CREATED
    return machine


@router.get("/{machine_id}", dependencies=[SCORE], responses=problems(404, 422))
async def get_machine(call: CallOf, machine_id: MachineIdPath) -> Machine:
    """Show a machine, its bank and its threshold."""
    return await call.run(usecase.get_machine, machine_id)


@router.delete(
    "/{machine_id}",
    dependencies=[ADMIN],
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problems(404, 422, 507),
)
async def delete_machine(call: CallOf, machine_id: MachineIdPath) -> None:
    """Delete a machine and its bank."""
    await call.run(usecase.delete_machine, machine_id)


@router.get("/{machine_id}/threshold", dependencies=[SCORE], responses=problems(404, 409, 422))
async def show_threshold(call: CallOf, machine_id: MachineIdPath) -> Threshold:
    """Show a machine's decision threshold and the false-alarm rate it promises."""
    return await call.run(get_threshold, machine_id)


@router.put("/{machine_id}/threshold", dependencies=[ADMIN], responses=problems(404, 413, 422, 507))
async def change_threshold(call: CallOf, machine_id: MachineIdPath, settings: ThresholdSettings) -> Machine:
    """Choose how a machine's decision threshold is set. It takes effect at once; nothing is enrolled again."""
    return await call.run(usecase.put_threshold, machine_id, settings)


@router.delete("/{machine_id}/threshold", dependencies=[ADMIN], responses=problems(404, 422, 507))
async def reset_threshold(call: CallOf, machine_id: MachineIdPath) -> Machine:
    """Go back to the conformal rule at the service's false-alarm rate."""
    return await call.run(usecase.put_threshold, machine_id, ThresholdSettings())


@router.get("/{machine_id}/drift", dependencies=[SCORE], responses=problems(404, 409, 422, 507))
async def show_drift(call: CallOf, machine_id: MachineIdPath) -> DriftReport:
    """Show whether recent scores have moved from the scores of the enrolled clips, and what to do."""
    return await call.run(get_drift, machine_id)


@router.get("/{machine_id}/clips", dependencies=[SCORE], responses=problems(404, 422))
async def list_clips(
    call: CallOf,
    machine_id: MachineIdPath,
    after: Annotated[int, Query(ge=0, le=MAX_KEY, description="clip id after which the page begins")] = 0,
    limit: PageSize = 100,
) -> ClipList:
    """List the enrolled clips of a machine by id."""
    return await call.run_light(usecase.list_clips, machine_id, after, limit)


@router.delete("/{machine_id}/clips/{clip_id}", dependencies=[ENROLL], responses=problems(404, 422, 507))
async def delete_clip(
    call: CallOf,
    machine_id: MachineIdPath,
    clip_id: Annotated[int, Path(ge=1, le=MAX_KEY)],
) -> Machine:
    """Delete a clip from a machine's bank."""
    return await call.run(usecase.delete_clip, machine_id, clip_id)


@router.get("/{machine_id}/noise", dependencies=[SCORE], responses=problems(404, 422))
async def show_noise(call: CallOf, machine_id: MachineIdPath) -> NoiseList:
    """List the noise clips of a machine."""
    return await call.run_light(list_noise, machine_id)


@router.delete(
    "/{machine_id}/noise/{noise_id}",
    dependencies=[ENROLL],
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problems(404, 422, 507),
)
async def remove_noise(
    call: CallOf,
    machine_id: MachineIdPath,
    noise_id: Annotated[int, Path(ge=1, le=MAX_KEY)],
) -> None:
    """Delete a noise clip of a machine."""
    await call.run(delete_noise, machine_id, noise_id)
