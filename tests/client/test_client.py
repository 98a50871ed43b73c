"""Requests, attempts and errors of the clients, without a service."""

import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from offkey import ErrorKind, OffkeyError, ProblemError, UnreachableError

Connect = Callable[..., Any]
Record = Callable[..., Any]

PROBLEM = {"type": "urn:offkey:problem:overloaded", "title": "", "instance": "/", "request_id": "4f1c"}
ENROLLMENT = {"machine_id": "fan-1", "generation": 1, "clips": [], "bank": {"source": 1, "target": 0}}
JOB = {
    "job_id": 7, "kind": "enroll", "state": "queued", "machine_id": "fan-1", "total": None, "done": 0, "entries": {},
    "result": None, "problem": None, "detail": None, "who": "anonymous", "created_at": "2026-01-01T00:00:00Z",
    "started_at": None, "ended_at": None,
}  # fmt: skip


def refusal(status: int, detail: str = "no", retry_after: str | None = None, **values: object) -> httpx2.Response:
    """Return a response with a problem."""
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return httpx2.Response(status, headers=headers, json={**PROBLEM, "status": status, "detail": detail, **values})


@pytest.mark.parametrize("machine_id", ["m/clips/1", "m%2Fclips%2F1", "..", "", "m?x=1", "m#1", "m\n", "ä"])
@pytest.mark.parametrize(
    "call",
    [
        lambda client, machine_id: client.machine(machine_id),
        lambda client, machine_id: client.put_machine(machine_id),
        lambda client, machine_id: client.delete_machine(machine_id),
        lambda client, machine_id: client.clips(machine_id),
        lambda client, machine_id: client.delete_clip(machine_id, 1),
        lambda client, machine_id: client.delete_noise(machine_id, 1),
        lambda client, machine_id: client.score(machine_id, b"sound"),
        lambda client, machine_id: client.reembed(machine_id),
    ],
)
def test_a_machine_id_that_cannot_exist_is_not_sent(
    connect: Connect, record: Record, call: Callable[[Any, str], object], machine_id: str
) -> None:
    service = record(httpx2.Response(204))
    with pytest.raises(OffkeyError) as refused:
        call(connect(service), machine_id)
    assert refused.value.kind is ErrorKind.INVALID_MACHINE_ID
    assert not service.requests


def test_ids_cannot_lead_to_another_route(connect: Connect, record: Record) -> None:
    service = record(httpx2.Response(204))
    client = connect(service)
    with pytest.raises(ValueError, match="'d'"):
        client.delete_clip("fan-1", "../x")
    for name in ("../keys", "a/b", ".hidden", ""):
        with pytest.raises(OffkeyError, match="name of a snapshot"):
            client.delete_snapshot(name)
    assert not service.requests


def test_a_busy_service_gets_the_whole_request_again(
    connect: Connect, record: Record, tmp_path: Path, waits: list[float]
) -> None:
    clip = tmp_path / "clip.wav"
    clip.write_bytes(b"sound of a fan")
    busy = refusal(503, retry_after="2")
    service = record(busy, busy, httpx2.Response(201, json=ENROLLMENT))
    assert connect(service).enroll("fan-1", [clip]).generation == 1
    assert waits == [2, 4]
    assert len(service.requests) == 3
    assert all(b"sound of a fan" in request.content for request in service.requests)
    keys = {request.headers["Idempotency-Key"] for request in service.requests}
    assert len(keys) == 1


def test_each_enrollment_has_its_own_idempotency_key(connect: Connect, record: Record) -> None:
    service = record(httpx2.Response(201, json=ENROLLMENT))
    client = connect(service)
    client.enroll("fan-1", b"sound")
    client.enroll("fan-1", b"sound")
    client.enroll("fan-1", b"sound", idempotency_key="shift-7")
    first, second, third = (request.headers["Idempotency-Key"] for request in service.requests)
    assert first != second
    assert third == "shift-7"


def test_the_number_of_attempts_and_each_wait_are_bounded(connect: Connect, record: Record, waits: list[float]) -> None:
    service = record(refusal(429, retry_after="20"))
    with pytest.raises(ProblemError):
        connect(service, retries=3).info()
    assert waits == [20, 40, 60]
    assert len(service.requests) == 4


def test_retry_after_can_be_a_date(connect: Connect, record: Record, waits: list[float]) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)  # the clock of the service
    busy = refusal(503, retry_after=format_datetime(now + timedelta(seconds=7), usegmt=True))
    busy.headers["Date"] = format_datetime(now, usegmt=True)
    service = record(busy, httpx2.Response(200, json=JOB))
    assert connect(service).job(7).job_id == 7
    assert waits == [7]


def test_a_date_in_the_past_is_no_reason_to_hurry(connect: Connect, record: Record, waits: list[float]) -> None:
    service = record(refusal(503, retry_after="Wed, 21 Oct 2015 07:28:00 GMT"), httpx2.Response(200, json=JOB))
    connect(service).job(7)
    assert waits == [0.1]


@pytest.mark.parametrize(
    "answer",
    [
        refusal(503),
        refusal(503, retry_after="soon"),
        refusal(503, retry_after="-1"),
        refusal(503, retry_after="3600"),
        refusal(503, retry_after="Wed, 21 Oct 2099 07:28:00 GMT"),
        *(refusal(status, retry_after="1") for status in (409, 500, 507)),
    ],
)
def test_other_refusals_are_final(
    connect: Connect, record: Record, answer: httpx2.Response, waits: list[float]
) -> None:
    service = record(answer)
    with pytest.raises(ProblemError):
        connect(service).info()
    assert len(service.requests) == 1
    assert not waits


IDEMPOTENT: list[Callable[[Any], object]] = [
    lambda client: client.job(7),
    lambda client: client.cancel_job(7),
    lambda client: client.enroll_archive("fan-1", b"PK"),
]
NOT_IDEMPOTENT: list[Callable[[Any], object]] = [
    lambda client: client.create_key("ops", ["admin"]),
    lambda client: client.start_snapshot(),
    lambda client: client.reembed(),
    lambda client: client.feedback("fan-1", b"sound"),
    lambda client: client.add_noise("fan-1", b"sound"),
]


@pytest.mark.parametrize("error", [httpx2.ConnectError, httpx2.ReadError, httpx2.RemoteProtocolError])
@pytest.mark.parametrize("call", IDEMPOTENT)
def test_a_broken_connection_is_repeated_if_that_changes_nothing(
    connect: Connect, record: Record, waits: list[float], call: Callable[[Any], Any], error: type[Exception]
) -> None:
    service = record(error("broken"), error("broken"), httpx2.Response(200, json=JOB))
    assert call(connect(service)).job_id == 7
    assert waits == [0.2, 0.4]


@pytest.mark.parametrize("call", NOT_IDEMPOTENT)
def test_a_broken_connection_is_not_repeated_otherwise(
    connect: Connect, record: Record, waits: list[float], call: Callable[[Any], object]
) -> None:
    service = record(httpx2.ReadError("broken"))
    with pytest.raises(UnreachableError, match="broken"):
        call(connect(service))
    assert len(service.requests) == 1
    assert not waits


def test_a_connection_is_repeated_three_times_at_most_and_a_timeout_never(
    connect: Connect, record: Record, waits: list[float]
) -> None:
    service = record(httpx2.ConnectError("refused"))
    with pytest.raises(UnreachableError, match=r"refused.*`offkey serve`"):
        connect(service, retries=9).info()
    assert len(service.requests) == 4
    service = record(httpx2.ReadTimeout("late"))
    with pytest.raises(UnreachableError, match="late"):
        connect(service).info()
    assert len(service.requests) == 1
    assert len(waits) == 3


def test_an_error_names_the_clip_and_the_request(connect: Connect, record: Record) -> None:
    with pytest.raises(ProblemError) as error:
        connect(record(refusal(422, "The clip is silent.", clip="hall 2.wav"))).info()
    assert str(error.value) == "hall 2.wav: The clip is silent. (request 4f1c)"
    assert error.value.kind == "overloaded"
    assert json.loads(error.value.problem.model_dump_json())["clip"] == "hall 2.wav"
    with pytest.raises(ProblemError) as error:
        connect(record(refusal(409, "hall 2.wav is enrolled already.", clip="hall 2.wav"))).info()
    assert str(error.value) == "hall 2.wav is enrolled already. (request 4f1c)"


@pytest.mark.parametrize("response", [httpx2.Response(200, text="<html>"), httpx2.Response(404, text="<html>")])
def test_another_server_is_not_taken_for_offkey(connect: Connect, record: Record, response: httpx2.Response) -> None:
    with pytest.raises(UnreachableError, match="not as Offkey"):
        connect(record(response)).info()


def test_a_list_has_all_pages(connect: Connect, record: Record) -> None:
    pages = [
        {"jobs": [{**JOB, "job_id": number}], "next_before": number if number > 1 else None} for number in (3, 2, 1)
    ]
    service = record(*(httpx2.Response(200, json=page) for page in pages))
    assert [job.job_id for job in connect(service).jobs()] == [3, 2, 1]
    assert [request.url.query for request in service.requests] == [b"", b"before=3", b"before=2"]


def test_wait_ends_with_the_job_or_the_time(connect: Connect, record: Record, waits: list[float]) -> None:
    states = ("queued", "running", "done")
    service = record(*(httpx2.Response(200, json={**JOB, "state": state}) for state in states))
    seen: list[str] = []
    done = connect(service).wait(7, on_progress=lambda job: seen.append(job.state), poll_seconds=2)
    assert done.state == "done"
    assert seen == list(states)
    assert waits == [2, 2]
    with pytest.raises(TimeoutError, match="Job 7"):
        connect(record(httpx2.Response(200, json=JOB))).wait(done, timeout=0.1)


def test_a_download_that_breaks_off_leaves_the_old_file(connect: Connect, tmp_path: Path) -> None:
    file = tmp_path / "x.tar"
    file.write_text("old")

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"half")

    with server(answer) as url, pytest.raises(UnreachableError):
        connect(url).download_snapshot("x.tar", file)
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar"]


@pytest.mark.parametrize("kind", ["path", "str", "bytes", "file"])
def test_an_archive_is_sent_in_blocks_and_again_from_its_beginning(connect: Connect, tmp_path: Path, kind: str) -> None:
    content = bytes(range(256)) * 10_000
    file = tmp_path / "clips.zip"
    file.write_bytes(content)
    reads: list[int] = []

    class Opened(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            reads.append(size or -1)
            return super().read(size)

    opened = Opened(b"before" + content)
    opened.seek(6)
    bodies: list[tuple[str | None, bytes]] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        size = handler.headers["Content-Length"]
        bodies.append((handler.headers["Idempotency-Key"], handler.rfile.read(int(size))))
        busy = refusal(503, retry_after="0")
        body = busy.content if len(bodies) == 1 else json.dumps(JOB).encode()
        handler.send_response(503 if len(bodies) == 1 else 202)
        handler.send_header("Retry-After", "0")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    archive = {"path": file, "str": str(file), "bytes": content, "file": opened}[kind]
    with server(answer) as url:
        assert connect(url).enroll_archive("fan-1", archive).job_id == 7
    assert [body == content for _, body in bodies] == [True, True]
    assert bodies[0][0] == bodies[1][0]
    assert kind != "file" or set(reads) == {1 << 20}


def test_a_connection_that_breaks_is_opened_again(connect: Connect) -> None:
    attempts: list[int] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        attempts.append(1)
        if len(attempts) == 1:
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        body = json.dumps(JOB).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    with server(answer) as url:
        assert connect(url).job(7).job_id == 7
    assert len(attempts) == 2


@contextmanager
def server(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """Run an HTTP server that calls `answer` for each request, and yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)
            self.close_connection = True

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
