"""Requests made from the OpenAPI document: what fits it and what does not, one by one and in sequences."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st

from service.problems import PROBLEM_JSON, PROBLEMS, TYPE_PREFIX

TORTURE = "OFFKEY_TORTURE" in os.environ
EXAMPLES = 400 if TORTURE else 10  # of each operation
SEQUENCES = 1_000 if TORTURE else 15
SETTINGS = hypothesis.settings(deadline=None, derandomize=not TORTURE, database=None)
MACHINES = ["fan-1", "fan-2"]
# Half of the requests are about what is there. Nothing in a schema can say that a body is audio that can be scored.
CONFIG = schemathesis.Config.from_dict(
    {
        "dictionaries": {"machines": {"values": MACHINES}, "clips": {"values": list(range(1, 13))}},
        "parameters": {
            "path.machine_id": {"dictionary": "machines", "probability": 0.5},
            "query.machine_id": {"dictionary": "machines", "probability": 0.5},
            "path.clip_id": {"dictionary": "clips", "probability": 0.5},
        },
        "operations": [
            *(
                {"include-path": path, "checks": {"positive_data_acceptance": {"enabled": False}}}
                for path in ("/enroll", "/score", "/feedback")
            ),
            # A threshold that is deleted is the default again.
            {"include-path": "/machines/{machine_id}/threshold", "checks": {"use_after_free": {"enabled": False}}},
        ],
        # One file is the same on the wire as a list of one; schemathesis knows that of single requests alone.
        "phases": {"stateful": {"checks": {"negative_data_rejection": {"enabled": False}}}},
    }
)


def refused_as_promised(_: schemathesis.CheckContext, response: schemathesis.Response, __: schemathesis.Case) -> None:
    """Every error is a problem of the table. That its status is in the schema, another check looks at."""
    if response.status_code >= 400:
        assert response.headers["content-type"] == [PROBLEM_JSON]
        problem = response.json()
        statuses = {TYPE_PREFIX + kind.value: status for kind, (status, _) in PROBLEMS.items()}
        assert statuses[problem["type"]] == problem["status"] == response.status_code
        assert response.status_code < 500
        assert len(problem["detail"]) > 20
        assert [problem["request_id"]] == response.headers["x-request-id"]


@pytest.fixture
def clips(fan: Callable[..., bytes]) -> list[bytes]:
    """What a binary field may hold, beside bytes that are no audio."""
    found = [fan(number, seconds=1.0) for number in range(8)]
    schemathesis.openapi.format("binary", st.sampled_from(found) | st.binary(max_size=200))
    return found


@pytest.fixture
def client(serve: Callable[..., str], tmp_path: Path) -> Iterator[httpx2.Client]:
    """A client of a running service."""
    with httpx2.Client(base_url=serve(tmp_path / "data"), timeout=30) as client:
        yield client


@pytest.fixture
def document(client: httpx2.Client, clips: list[bytes]) -> schemathesis.BaseSchema:
    """The OpenAPI document of a running service with machines of six clips."""
    prepare(client, clips[:6])
    return schemathesis.openapi.from_url(f"{client.base_url}/openapi.json", config=CONFIG)


def prepare(client: httpx2.Client, clips: list[bytes]) -> None:
    """Let there be the machines of the dictionary with these clips, and no others."""
    for machine in client.get("/machines", params={"limit": 1_000}).json()["machines"]:
        client.delete(f"/machines/{machine['machine_id']}").raise_for_status()
    for machine_id in MACHINES:
        client.put(f"/machines/{machine_id}").raise_for_status()
        files = [("clips", (f"{number}.wav", clip)) for number, clip in enumerate(clips)]
        client.post("/enroll", params={"machine_id": machine_id}, files=files).raise_for_status()


def note(done: Counter[str], case: schemathesis.Case, response: schemathesis.Response) -> None:
    if case.method == case.operation.method.upper():
        done[case.operation.label] += response.status_code < 300


@pytest.fixture
def done() -> Iterator[Counter[str]]:
    """How often each operation was done. One that is only ever refused would be tested to its door alone."""
    counts = Counter[str]()
    yield counts
    assert all(counts.values()), counts


# A machine that is deleted would leave the operations after it nothing to do: the sequences do that.
schema = schemathesis.pytest.from_fixture("document").exclude(method="DELETE", path="/machines/{machine_id}")


@pytest.mark.timeout(3_600 if TORTURE else 120)
@schema.parametrize()
@hypothesis.settings(SETTINGS, max_examples=EXAMPLES)
def test_single_requests(case: schemathesis.Case, done: Counter[str]) -> None:
    note(done, case, case.call_and_validate(additional_checks=[refused_as_promised]))


@pytest.mark.timeout(3_600 if TORTURE else 120)
def test_sequences_of_requests(document: schemathesis.BaseSchema, client: httpx2.Client, clips: list[bytes]) -> None:
    """What one request made, the next ones ask for, change and delete."""
    done = Counter[str]()

    class Sequence(document.as_state_machine()):  # type: ignore[misc]
        def setup(self) -> None:
            prepare(client, clips[:2])

        def validate_response(self, response: schemathesis.Response, case: schemathesis.Case, **kwargs: object) -> None:
            note(done, case, response)
            super().validate_response(response, case, additional_checks=[refused_as_promised], **kwargs)

    Sequence.run(settings=hypothesis.settings(SETTINGS, max_examples=SEQUENCES, stateful_step_count=12))
    assert min(done[f"{method} /machines/{{machine_id}}"] for method in ("PUT", "GET", "DELETE")) > 5, done
