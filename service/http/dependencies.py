"""What routes share: the application's state, parameter types, documented errors."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request
from pydantic import AfterValidator, WithJsonSchema

from offkey.vocabulary import MACHINE_ID_PATTERN, check_machine_id
from service.http.problems import PROBLEM_JSON
from service.jobs.runner import Runner
from service.usecases.admission import WorkPool
from service.usecases.service import Context

MAX_PAGE_ENTRIES = 1_000
MAX_KEY = 2**63 - 1  # of the database
PROBLEM_SCHEMA = {"$ref": "#/components/schemas/Problem"}

_MachineId = Annotated[
    str,
    AfterValidator(check_machine_id),
    WithJsonSchema({"type": "string", "pattern": MACHINE_ID_PATTERN}),
]
MachineIdPath = Annotated[_MachineId, Path(description="one physical unit", examples=["fan-1"])]
MachineIdQuery = Annotated[
    _MachineId | None, Query(description="one physical unit; may be a form field instead", examples=["fan-1"])
]
PageSize = Annotated[int, Query(ge=1, le=MAX_PAGE_ENTRIES, description="entries in a page")]


async def _service(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


async def context_of(request: Request) -> Context:
    """The adapters, for the caller of a request that was let in."""
    context: Context = request.app.state.context
    return context.by(request.state.caller, request.state.stages)


async def work_pool_of(request: Request) -> WorkPool:
    """The threads that hear clips."""
    workers: WorkPool = request.app.state.workers
    return workers


async def _readers(request: Request) -> WorkPool:
    light_pool: WorkPool = request.app.state.light_pool
    return light_pool


async def _uploads(request: Request) -> WorkPool:
    uploads: WorkPool = request.app.state.uploads
    return uploads


async def _runner(request: Request) -> Runner:
    runner: Runner = request.app.state.runner
    return runner


# Coroutines, though they wait for nothing: FastAPI would hand a plain function to a thread.
# For the routes that are open to everybody.
ServiceOf = Annotated[Context, Depends(_service)]
# For one caller: fails on a route that asked for no key.
ContextOf = Annotated[Context, Depends(context_of)]
# For archives, which take minutes.
ArchivePool = Annotated[WorkPool, Depends(_uploads)]
RunnerOf = Annotated[Runner, Depends(_runner)]
WorkPoolOf = Annotated[WorkPool, Depends(work_pool_of)]
# For what reads a page of the store and no more: never what decodes, writes or builds a bank.
LightPool = Annotated[WorkPool, Depends(_readers)]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for the statuses of problem+json answers that a route gives."""
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {PROBLEM_JSON: {"schema": PROBLEM_SCHEMA}}}
        for status in statuses
    }
