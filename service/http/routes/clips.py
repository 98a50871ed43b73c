"""`POST /enroll`, `/score`, `/feedback` and `/noise`."""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Annotated, Concatenate, ParamSpec, TypeVar

from fastapi import APIRouter, Header, Query, Request, Response, status
from pydantic import BaseModel, Field

from offkey.errors import ErrorKind, OffkeyError
from offkey.schemas import Enrollment, Feedback, Job, NoiseEnrollment, Scores
from offkey.vocabulary import Domain
from service.audio.budget import Budget
from service.http.archive_upload import save_archive
from service.http.auth import ENROLL, SCORE, ArchiveRoute, AuthenticatedRoute, DirectRoute, is_zip
from service.http.clip_form import ENROLL_FIELDS, SCORE_FIELDS, ClipForm, named_recording, read_clips, request_body
from service.http.dependencies import CallOf, MachineIdQuery, problems
from service.jobs.archives import archive_folder, start_archive
from service.telemetry.stages import Stage
from service.usecases.admission import Slot
from service.usecases.clip import Clip
from service.usecases.enroll import EnrollOptions, enroll_clips
from service.usecases.feedback import enroll_false_alarms
from service.usecases.noise import add_noise
from service.usecases.score import ScoreOptions, score_clips
from service.usecases.service import Call

P = ParamSpec("P")
T = TypeVar("T")

router = APIRouter(tags=["clips"], route_class=AuthenticatedRoute)

DomainQuery = Annotated[Domain | None, Query(description="domain of the clips; source by default")]
RecordingQuery = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=255,
        description="recording that all clips of the request were cut from; without it each clip is its own recording",
    ),
]
ClipName = Annotated[str | None, Query(max_length=255, description="name of a clip sent as the raw body")]
IdempotencyKeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="key of the request; a request repeated within 24 h gets the first answer, and nothing is done",
    ),
]


async def enroll(
    request: Request,
    response: Response,
    call: CallOf,
    machine_id: MachineIdQuery = None,
    domain: DomainQuery = None,
    name: ClipName = None,
    recording: RecordingQuery = None,
    force: Annotated[bool, Query(description="enroll clips even if they sound anomalous")] = False,
    idempotency_key: IdempotencyKeyHeader = None,
) -> Enrollment | Response:
    """Add normal clips to a machine's memory bank.

    If one clip cannot be used, none is enrolled. Once the domain has 20 recordings, a clip that sounds plainly
    anomalous is held back and reported, unless `force` is set.

    A zip archive (`application/zip`) becomes a job, which reports the result of each entry. An unusable entry does not
    affect the others. The options of its clips are given in the query.
    """
    if is_zip(request.headers):
        options = EnrollOptions(domain or Domain.SOURCE, named_recording(recording), force=force)
        machine = ClipForm.empty().machine_id(machine_id, call.caller)
        return await _enroll_archive(request, call, machine, options, idempotency_key)
    async with call.service.admission.work_pool.slot() as slot:
        form = await _read(request, call, slot, name, ENROLL_FIELDS)
        machine = form.machine_id(machine_id, call.caller)
        options = EnrollOptions(form.domain(domain), form.recording(recording), force=force)
        answer = await _run(request, call, slot, form, enroll_clips, machine, options, form.clips, idempotency_key)
    if not any(clip.status == "enrolled" for clip in answer.clips):
        response.status_code = status.HTTP_200_OK
    return answer


router.add_api_route(
    "/enroll",
    enroll,
    methods=["POST"],
    route_class_override=ArchiveRoute,
    dependencies=[ENROLL],
    status_code=status.HTTP_201_CREATED,
    response_model=Enrollment,
    openapi_extra=request_body(ENROLL_FIELDS, archive=True),
    responses={
        200: {"model": Enrollment, "description": "Nothing was added: enrolled before, or held back"},
        202: {"model": Job, "description": "An archive was accepted; the job at `Location` enrolls its clips"},
        **problems(400, 404, 408, 409, 413, 422, 507),
    },
)


class ScoreQuery(BaseModel):
    """Query of `POST /score`."""

    machine_id: MachineIdQuery = None
    neighbors: int = Field(1, ge=1, description="enrolled windows to name for each scored window")
    name: ClipName = None
    localize: bool | None = Field(
        None, description="whether to report which seconds and bands stand out; by default only for a single clip"
    )


async def score(
    request: Request,
    call: CallOf,
    query: Annotated[ScoreQuery, Query()],
) -> Response:
    """Score clips against the clips enrolled for the machine."""
    limit = call.service.settings.limits.max_neighbors
    if query.neighbors > limit:
        raise OffkeyError(
            ErrorKind.TOO_MANY_NEIGHBORS,
            f"{query.neighbors} neighbors were requested; the limit is {limit}.",
            max_neighbors=limit,
        )
    async with call.service.admission.work_pool.slot() as slot:
        form = await _read(request, call, slot, query.name, SCORE_FIELDS)
        localize = len(form.clips) == 1 if query.localize is None else query.localize
        options = ScoreOptions(query.neighbors, localize)
        machine = form.machine_id(query.machine_id, call.caller)
        answer = await _run(request, call, slot, form, _score_json, machine, form.clips, options)
    return Response(answer, media_type="application/json")


router.add_api_route(
    "/score",
    score,
    methods=["POST"],
    route_class_override=DirectRoute,
    dependencies=[SCORE],
    response_model=Scores,
    openapi_extra=request_body(SCORE_FIELDS),
    responses=problems(400, 404, 408, 409, 413, 422),
)


@router.post(
    "/feedback",
    dependencies=[ENROLL],
    openapi_extra=request_body(ENROLL_FIELDS),
    responses=problems(400, 404, 408, 409, 413, 422, 507),
)
async def feedback(
    request: Request,
    call: CallOf,
    machine_id: MachineIdQuery = None,
    domain: DomainQuery = None,
    name: ClipName = None,
    recording: RecordingQuery = None,
) -> Feedback:
    """Report that the alarms of these clips were false. They are enrolled, and the answer shows what that changes."""
    async with call.service.admission.work_pool.slot() as slot:
        form = await _read(request, call, slot, name, ENROLL_FIELDS)
        machine = form.machine_id(machine_id, call.caller)
        options = EnrollOptions(form.domain(domain), form.recording(recording), force=True, false_alarm=True)
        return await _run(request, call, slot, form, enroll_false_alarms, machine, options, form.clips)


@router.post(
    "/noise",
    dependencies=[ENROLL],
    openapi_extra=request_body(SCORE_FIELDS),
    responses=problems(400, 404, 408, 409, 413, 422, 507),
)
async def noise(
    request: Request, call: CallOf, machine_id: MachineIdQuery = None, name: ClipName = None
) -> NoiseEnrollment:
    """Post the background noise while the machine stands still. Scored clips that sound like it get a warning."""
    async with call.service.admission.work_pool.slot() as slot:
        form = await _read(request, call, slot, name, SCORE_FIELDS)
        machine = form.machine_id(machine_id, call.caller)
        return await _run(request, call, slot, form, add_noise, machine, form.clips)


async def _enroll_archive(
    request: Request, call: Call, machine_id: str, options: EnrollOptions, idempotency_key: str | None
) -> Response:
    async with call.service.admission.archive_pool.slot() as slot:
        machine = await slot.run(call.store.machine, machine_id)
        archive = await save_archive(request, archive_folder(call.service.settings), call.service.settings, slot)
        job = await slot.run(start_archive, call, machine, options, archive, idempotency_key)
    return Response(
        job.model_dump_json(),
        status.HTTP_202_ACCEPTED,
        headers={"Location": f"/jobs/{job.job_id}"},
        media_type="application/json",
    )


def _score_json(call: Call, machine_id: str, clips: Sequence[Clip], options: ScoreOptions) -> str:
    """Return the serialized answer. FastAPI would validate it again, on the thread of the event loop."""
    return score_clips(call, machine_id, clips, options).model_dump_json()


async def _read(request: Request, call: Call, slot: Slot, name: str | None, fields: Sequence[str]) -> ClipForm:
    """Read the clips of a request, with one budget for all of them."""
    budget = Budget(call.service.settings.limits.max_decoded_samples, slot.stopping)
    with call.stages.during(Stage.RECEIVE):
        return await read_clips(request, name=name, fields=fields, settings=call.service.settings, budget=budget)


async def _run(
    request: Request,
    call: Call,
    slot: Slot,
    form: ClipForm,
    usecase: Callable[Concatenate[Call, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run a use case on a thread of the slot. It is stopped if the client leaves."""
    queued = perf_counter()

    def begin() -> T:
        call.stages.add(Stage.QUEUE, perf_counter() - queued)
        return usecase(call, *args, **kwargs)

    return await slot.run_until(_disconnected(request), form.budget, begin)


async def _disconnected(request: Request) -> None:
    """Return when the client has left. The body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
