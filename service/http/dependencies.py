"""Share what routes have in common: the call of a request, parameter types, documented errors."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request
from pydantic import AfterValidator, WithJsonSchema

from offkey.vocabulary import MACHINE_ID_PATTERN, check_machine_id
from service.http.problems import PROBLEM_JSON
from service.usecases.service import Call, Service

MAX_PAGE_ENTRIES = 1_000
MAX_KEY = 2**63 - 1  # largest id of a 64-bit database key
PROBLEM_SCHEMA = {"$ref": "#/components/schemas/Problem"}

_MachineId = Annotated[
    str,
    AfterValidator(check_machine_id),
    WithJsonSchema({"type": "string", "pattern": MACHINE_ID_PATTERN}),
]
MachineIdPath = Annotated[_MachineId, Path(description="id of one physical unit", examples=["fan-1"])]
MachineIdQuery = Annotated[
    _MachineId | None, Query(description="id of one physical unit; may be a form field instead", examples=["fan-1"])
]
PageSize = Annotated[int, Query(ge=1, le=MAX_PAGE_ENTRIES, description="entries in a page")]


# Coroutines, because FastAPI runs plain functions on a thread.
async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def call_of(request: Request) -> Call:
    """Return the call of a request. Fails on a route that authenticated nobody."""
    service: Service = request.app.state.service
    return service.call(request.state.caller, request.state.stages)


# For routes that need no key.
ServiceOf = Annotated[Service, Depends(_service)]
# For routes that need a key. Fails on a route that did not authenticate its caller.
CallOf = Annotated[Call, Depends(call_of)]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of the problem+json answers with these statuses."""
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {PROBLEM_JSON: {"schema": PROBLEM_SCHEMA}}}
        for status in statuses
    }
