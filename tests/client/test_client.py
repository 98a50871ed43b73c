"""The client beside a service that is played: what it sends, how often, and what its errors say."""

import json
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from offkey.client import Client, ProblemError
from offkey.errors import ErrorKind, OffkeyError

PROBLEM = {"type": "urn:offkey:problem:overloaded", "title": "", "instance": "/", "request_id": "4f1c"}


class Played:
    """Answers with `answers` one after another, the last one for ever, and remembers what it was sent."""

    def __init__(self, *answers: httpx2.Response) -> None:
        self.sent: list[httpx2.Request] = []
        self._answers = answers

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        self.sent.append(request)
        return self._answers[min(len(self.sent), len(self._answers)) - 1]


def refusal(status: int, detail: str = "no", retry_after: str | None = None, **values: object) -> httpx2.Response:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return httpx2.Response(status, headers=headers, json={**PROBLEM, "status": status, "detail": detail, **values})


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr("offkey.client.time.sleep", waited.append)
    return waited


def client_of(played: Played, **options: int) -> Client:
    client = Client("http://offkey.test", **options)
    client._http = httpx2.Client(base_url=client.url, transport=httpx2.MockTransport(played))
    return client


@pytest.mark.parametrize("machine_id", ["m/clips/1", "m%2Fclips%2F1", "..", "", "m?x=1", "m#1", "m\n", "ä"])
@pytest.mark.parametrize(
    "call",
    [
        lambda client, machine_id: client.machine(machine_id),
        lambda client, machine_id: client.put_machine(machine_id),
        lambda client, machine_id: client.delete_machine(machine_id),
        lambda client, machine_id: list(client.clips(machine_id)),
        lambda client, machine_id: client.delete_clip(machine_id, 1),
    ],
)
def test_an_id_that_no_machine_can_have_is_not_sent(call: Callable[[Client, str], object], machine_id: str) -> None:
    played = Played(httpx2.Response(204))
    with pytest.raises(OffkeyError) as refused:
        call(client_of(played), machine_id)
    assert refused.value.kind is ErrorKind.INVALID_MACHINE_ID
    assert not played.sent


def test_a_clip_id_is_a_number() -> None:
    played = Played(httpx2.Response(204))
    with pytest.raises(ValueError, match="'d'"):
        client_of(played).delete_clip("fan-1", "../x")
    assert not played.sent


def test_a_busy_service_is_asked_again_with_the_whole_request(tmp_path: Path, waits: list[float]) -> None:
    clip = tmp_path / "clip.wav"
    clip.write_bytes(b"sound of a fan")
    done = {"machine_id": "fan-1", "generation": 1, "clips": [], "bank": {"source": 1, "target": 0}}
    busy = refusal(503, retry_after="2")
    played = Played(busy, busy, httpx2.Response(201, json=done))
    assert client_of(played).enroll("fan-1", [clip]).generation == 1
    assert waits == [2, 4]
    assert len(played.sent) == 3
    assert all(b"sound of a fan" in request.content for request in played.sent)


def test_patience_has_an_end(waits: list[float]) -> None:
    played = Played(refusal(503, retry_after="1"))
    with pytest.raises(ProblemError):
        client_of(played, retries=3).info()
    assert waits == [1, 2, 4]
    assert len(played.sent) == 4


@pytest.mark.parametrize(
    "answer",
    [refusal(503), refusal(503, retry_after="Wed, 21 Oct 2026 07:28:00 GMT"), refusal(503, retry_after="3600")]
    + [refusal(status, retry_after="1") for status in (409, 500, 507)],
)
def test_other_refusals_are_final(answer: httpx2.Response, waits: list[float]) -> None:
    played = Played(answer)
    with pytest.raises(ProblemError):
        client_of(played).info()
    assert len(played.sent) == 1
    assert not waits


def test_an_error_names_the_clip_and_the_request() -> None:
    with pytest.raises(ProblemError) as error:
        client_of(Played(refusal(422, "The clip is silent.", clip="hall 2.wav"))).info()
    assert str(error.value) == "hall 2.wav: The clip is silent. (request 4f1c)"
    assert json.loads(error.value.problem.model_dump_json())["clip"] == "hall 2.wav"
    with pytest.raises(ProblemError) as error:
        client_of(Played(refusal(409, "hall 2.wav is enrolled already.", clip="hall 2.wav"))).info()
    assert str(error.value) == "hall 2.wav is enrolled already. (request 4f1c)"
