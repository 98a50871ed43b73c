"""`POST /enroll`, `/score`, `/feedback` and `/noise`."""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Annotated, Concatenate, ParamSpec, TypeVar

from fastapi import APIRouter, Header, Query, Request, Response, status
from pydantic import BaseModel, Field

from offkey.errors import ErrorKind, OffkeyError
from offkey.schemas import Enrollment, Feedback, Job, NoiseEnrollment, Scores
from offkey.vocabulary import Domain, check_machine_id
from service.audio.budget import UNLIMITED, Budget
from service.http.archive_upload import save_archive
from service.http.auth import ENROLL, SCORE, AuthenticatedRoute, DirectRoute
from service.http.clip_form import ENROLL_FIELDS, SCORE_FIELDS, ClipForm, read_clips, request_body
from service.http.dependencies import (
    ArchivePool,
    ContextOf,
    MachineIdQuery,
    RunnerOf,
    WorkPoolOf,
    context_of,
    problems,
    work_pool_of,
)
from service.http.middleware import ZIP
from service.jobs.archives import ArchiveFile, archive_folder, enroll_archive
from service.jobs.runner import Runner
from service.store import MachineRecord
from service.telemetry.stages import Stage
from service.usecases.admission import Slot
from service.usecases.clip import Clip
from service.usecases.enroll import EnrollOptions, enroll_clips
from service.usecases.feedback import learn_false_alarms
from service.usecases.jobs import job_of
from service.usecases.noise import add_noise
from service.usecases.score import score_clips
from service.usecases.service import Context

P = ParamSpec("P")
T = TypeVar("T")
_NOTHING_POSTED = ClipForm([], {}, UNLIMITED)

router = APIRouter(tags=["clips"], route_class=AuthenticatedRoute)

RecordingQuery = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=255,
        description="that all clips of the request were cut from; otherwise each is its own",
    ),
]
ClipName = Annotated[str | None, Query(max_length=255, description="name of a clip sent as the raw body")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="a request with the key of an earlier one gets the earlier answer for 24 h, and nothing is done",
    ),
]


@router.post(
    "/enroll",
    dependencies=[ENROLL],
    status_code=status.HTTP_201_CREATED,
    response_model=Enrollment,
    openapi_extra=request_body(ENROLL_FIELDS, archive=True),
    responses={
        200: {"model": Enrollment, "description": "Nothing was added: enrolled before, or held back"},
        202: {"model": Job, "description": "An archive was taken; the job at `Location` enrolls its clips"},
        **problems(400, 404, 408, 409, 413, 422, 507),
    },
)
async def enroll(
    request: Request,
    response: Response,
    context: ContextOf,
    workers: WorkPoolOf,
    uploads: ArchivePool,
    runner: RunnerOf,
    machine_id: MachineIdQuery = None,
    domain: Annotated[Domain | None, Query(description="source unless said otherwise")] = None,
    name: ClipName = None,
    recording: RecordingQuery = None,
    force: Annotated[bool, Query(description="enroll also what sounds anomalous")] = False,
    idempotency_key: IdempotencyKey = None,
) -> Enrollment | Response:
    """Add normal clips to a machine's memory bank.

    If one clip cannot be used, none is enrolled. Once the domain has 20 recordings, a clip that sounds plainly
    anomalous is held back and reported, unless `force` is set.

    A zip archive (`application/zip`) becomes a job, which tells what became of each entry; one that cannot be used
    leaves the others. What is said of its clips is said in the query.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == ZIP:
        said = EnrollOptions(domain or Domain.SOURCE, _named_recording(recording), trusted=force)
        async with uploads.slot() as slot:
            machine = await slot.run(context.store.machine, _machine_id(context, machine_id, _NOTHING_POSTED))
            uploaded = await save_archive(request, archive_folder(context.settings), context.settings, slot)
            job = await slot.run(_start, context, runner, machine, said, uploaded, idempotency_key)
        return Response(
            job.model_dump_json(),
            status.HTTP_202_ACCEPTED,
            headers={"Location": f"/jobs/{job.job_id}"},
            media_type="application/json",
        )
    async with workers.slot() as slot:
        posted = await _read(request, context, slot, name, ENROLL_FIELDS)
        answer = await _work(
            request,
            context,
            slot,
            posted,
            enroll_clips,
            _machine_id(context, machine_id, posted),
            EnrollOptions(_domain(domain, posted), _recording(recording, posted), trusted=force),
            posted.uploads,
            idempotency_key,
        )
    if not any(clip.status == "enrolled" for clip in answer.clips):
        response.status_code = status.HTTP_200_OK
    return answer


class ScoreQuery(BaseModel):
    """The query of `POST /score`."""

    machine_id: MachineIdQuery = None
    neighbors: int = Field(1, ge=1, description="enrolled windows to name for each scored one")
    name: ClipName = None
    localize: bool | None = Field(
        None, description="tell which seconds and bands of each window stand out; left out: where there is one clip"
    )


async def score(request: Request, query: Annotated[ScoreQuery, Query()]) -> Response:
    """Score clips against what was enrolled for the machine."""
    context, workers = await context_of(request), await work_pool_of(request)
    if query.neighbors > context.settings.max_neighbors:
        raise OffkeyError(
            ErrorKind.TOO_MANY_NEIGHBORS,
            f"{query.neighbors} neighbors were asked for; at most {context.settings.max_neighbors} are given.",
            max_neighbors=context.settings.max_neighbors,
        )
    async with workers.slot() as slot:
        posted = await _read(request, context, slot, query.name, SCORE_FIELDS)
        localize = len(posted.uploads) == 1 if query.localize is None else query.localize
        machine = _machine_id(context, query.machine_id, posted)
        answer = await _work(
            request, context, slot, posted, _score_json, machine, posted.uploads, query.neighbors, localize
        )
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
    context: ContextOf,
    workers: WorkPoolOf,
    machine_id: MachineIdQuery = None,
    domain: Annotated[Domain | None, Query(description="source unless said otherwise")] = None,
    name: ClipName = None,
    recording: RecordingQuery = None,
) -> Feedback:
    """Say that the alarms of these clips were false: they are enrolled, and the answer tells what that changes."""
    async with workers.slot() as slot:
        posted = await _read(request, context, slot, name, ENROLL_FIELDS)
        return await _work(
            request,
            context,
            slot,
            posted,
            learn_false_alarms,
            _machine_id(context, machine_id, posted),
            EnrollOptions(_domain(domain, posted), _recording(recording, posted), trusted=True, false_alarm=True),
            posted.uploads,
        )


@router.post(
    "/noise",
    dependencies=[ENROLL],
    openapi_extra=request_body(SCORE_FIELDS),
    responses=problems(400, 404, 408, 409, 413, 422, 507),
)
async def noise(
    request: Request,
    context: ContextOf,
    workers: WorkPoolOf,
    machine_id: MachineIdQuery = None,
    name: ClipName = None,
) -> NoiseEnrollment:
    """Post the background while the machine stands still: clips that sound like it are warned of when scored."""
    async with workers.slot() as slot:
        posted = await _read(request, context, slot, name, SCORE_FIELDS)
        machine = _machine_id(context, machine_id, posted)
        return await _work(request, context, slot, posted, add_noise, machine, posted.uploads)


def _start(
    context: Context,
    runner: Runner,
    machine: MachineRecord,
    condition: EnrollOptions,
    uploaded: ArchiveFile,
    idempotency_key: str | None,
) -> Job:
    """Make a job of an archive, or leave nothing of it."""
    try:
        record = enroll_archive(context, machine, condition, uploaded, idempotency_key)
    except BaseException:
        uploaded.path.unlink(missing_ok=True)
        raise
    runner.wake()
    return job_of(context, record)


def _score_json(context: Context, machine_id: str, uploads: Sequence[Clip], neighbors: int, localize: bool) -> str:
    """The answer as it goes out: FastAPI would check it again, on the thread of the event loop."""
    return score_clips(context, machine_id, uploads, neighbors, localize).model_dump_json()


async def _read(request: Request, context: Context, slot: Slot, name: str | None, fields: Sequence[str]) -> ClipForm:
    """The clips of a request, with one budget for all of them."""
    budget = Budget(context.settings.max_decoded_samples, slot.stopping)
    with context.stages.during(Stage.RECEIVE):
        return await read_clips(request, name=name, fields=fields, settings=context.settings, budget=budget)


async def _work(
    request: Request,
    context: Context,
    slot: Slot,
    posted: ClipForm,
    usecase: Callable[Concatenate[Context, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run a use case on a worker thread."""
    asked = perf_counter()

    def begin() -> T:
        context.stages.add(Stage.QUEUE, perf_counter() - asked)
        return usecase(context, *args, **kwargs)

    return await slot.run_for(request, posted.budget, begin)


def _given(name: str, query: str | None, posted: ClipForm) -> str | None:
    """A value that may come in the query or in the form."""
    form = posted.fields.get(name)
    if query is not None and form is not None and query != form:
        raise OffkeyError(
            ErrorKind.MALFORMED_REQUEST,
            f"The query says {name}={query[:80]!r} and the form says {form[:80]!r}. Say it once.",
        )
    return form if query is None else query


def _machine_id(context: Context, query: str | None, posted: ClipForm) -> str:
    machine_id = _given("machine_id", query, posted)
    if machine_id is None:
        raise OffkeyError(
            ErrorKind.MALFORMED_REQUEST,
            "No machine is named. Add ?machine_id=... or a form field machine_id.",
        )
    context.store.caller.check_machine(check_machine_id(machine_id))
    return machine_id


def _domain(query: Domain | None, posted: ClipForm) -> Domain:
    given = _given("domain", query, posted)
    if given is None:
        return Domain.SOURCE
    try:
        return Domain(given)
    except ValueError as error:
        raise OffkeyError(
            ErrorKind.MALFORMED_REQUEST, f"The domain {given[:80]!r} is not known; use source or target."
        ) from error


def _recording(query: str | None, posted: ClipForm) -> str | None:
    return _named_recording(_given("recording", query, posted))


def _named_recording(given: str | None) -> str | None:
    if given is not None and not (0 < len(given) <= 255 and given.isprintable()):
        raise OffkeyError(
            ErrorKind.MALFORMED_REQUEST,
            f"The recording {given[:80]!r} is not usable as a name. Use 1 to 255 printable characters, or none.",
        )
    return given
