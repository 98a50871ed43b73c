"""Requests generated from the OpenAPI document: none fails the service, and each answer matches the document."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from torture import TORTURE, scaled

EXAMPLES = scaled(400, 8)  # of each operation, in each mode
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)
DOCUMENTED = {503, 507}
# Resources that exist when the requests begin; some requests delete them. The clips and the noise are of fan-1.
THERE = {
    "machine_id": ["fan-1", "fan-1", "fan-2"],
    "clip_id": [1, 2, 3],
    "noise_id": [1],
    "job_id": [1],
    "key_id": ["0" * 12],
}


CLIPS = {"POST /enroll", "POST /score", "POST /feedback", "POST /noise"}
# What takes away what the others are about comes last.
LAST = "DELETE /machines/{machine_id}"
# There is nothing to succeed with: one is refused as it is over, the others name what only the service can name.
NEVER_DONE = {"DELETE /jobs/{job_id}", "GET /snapshots/{name}", "DELETE /snapshots/{name}", "DELETE /keys/{key_id}"}


@pytest.fixture
def admin(serve: Callable[..., str], tmp_path: Path, fan: Callable[..., bytes]) -> Iterator[httpx2.Client]:
    """A service with machines, clips, noise and a job, and a key for all of it."""
    with httpx2.Client(base_url=serve(tmp_path), timeout=60) as client:
        key = client.post("/keys", json={"name": "ops", "scopes": ["admin"]}).json()["key"]
        client.headers["Authorization"] = f"Bearer {key}"
        for machine in sorted(set(THERE["machine_id"])):
            client.put(f"/machines/{machine}")
            files = [("clips", (f"{number}.wav", fan(number, seconds=1.0))) for number in range(5)]
            assert client.post("/enroll", params={"machine_id": machine}, files=files).status_code == 201
        client.post("/noise", params={"machine_id": "fan-1"}, content=fan(9, seconds=1.0))
        client.post("/snapshots")
        yield client


def refer(case: Any, data: st.DataObject, fan: Callable[..., bytes]) -> None:
    """Let about half of the requests name existing resources, and send a clip."""
    for parameters in (case.path_parameters, case.query):
        # Sorted: the order of a set differs between processes, and with it what is drawn.
        names = sorted(THERE.keys() & (parameters or {}).keys())
        if names and data.draw(st.booleans()):
            for name in names:
                parameters[name] = data.draw(st.sampled_from(THERE[name]))
    if case.operation.label in CLIPS and data.draw(st.booleans()):
        case.media_type = "application/octet-stream"
        case.body = fan(data.draw(st.integers(0, 50)), seconds=1.0)
        case.query = {"machine_id": "fan-1"}


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_made_up_requests(admin: httpx2.Client, mode: GenerationMode, fan: Callable[..., bytes]) -> None:
    schema = schemathesis.openapi.from_dict(admin.get("/openapi.json").json())
    schema.config.update(base_url=str(admin.base_url))
    operations = [found.ok() for found in schema.get_all_operations()]
    operations.sort(key=lambda one: (one.label == LAST, one.label.startswith("DELETE")))
    statuses: dict[str, set[int]] = {}
    for operation in operations:
        if mode is GenerationMode.NEGATIVE and not (operation.query or operation.path_parameters or operation.body):
            continue  # nothing of it can be wrong

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=not TORTURE,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode), data=st.data())
        def ask(case: Any, data: st.DataObject) -> None:
            refer(case, data, fan)
            answer = case.call(headers=dict(admin.headers))
            if answer.status_code not in DOCUMENTED:
                case.validate_response(answer, checks=CHECKS)
            if answer.status_code >= 400:
                assert answer.headers["content-type"][0] == "application/problem+json"
                assert answer.json()["status"] == answer.status_code
            statuses.setdefault(case.operation.label, set()).add(answer.status_code)

        ask()
    assert len(statuses) > 20
    if mode is GenerationMode.POSITIVE:  # otherwise all could be refused
        assert {label for label, found in statuses.items() if min(found) >= 300} <= NEVER_DONE
