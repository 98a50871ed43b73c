"""A body over the limit is refused before it is read whole, and the client gets to see why."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from launch import as_process
from offkey import Client, ProblemError

MEBIBYTE = 2**20
pytestmark = pytest.mark.xdist_group("body-limit")  # one service for all


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    with as_process(tmp_path_factory.mktemp("data"), max_body_bytes=MEBIBYTE) as running:
        yield running.host, running.port


def exchange(address: tuple[str, int], head: str, body: Iterator[bytes]) -> tuple[bytes, int]:
    """Send until there is an answer; return it, and how much of the body had been sent by then."""
    sent = 0
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(head.encode())
        connection.setblocking(False)
        answer = b""
        for chunk in body:
            try:
                connection.setblocking(True)
                connection.settimeout(0.05)
                connection.sendall(chunk)
                sent += len(chunk)
                answer = connection.recv(65_536)
            except TimeoutError:
                continue
            except OSError:
                break
            if answer:
                break
        connection.settimeout(20)
        while b"\r\n\r\n" not in answer or not answer.rstrip().endswith(b"}"):
            more = connection.recv(65_536)
            if not more:
                break
            answer += more
    return answer, sent


def problem(answer: bytes) -> dict:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 413 " in head.split(b"\r\n", 1)[0] + b" "
    assert b"connection: close" in head.lower()
    found: dict = json.loads(body)
    assert found["type"].endswith("body-too-large")
    assert found["max_body_bytes"] == MEBIBYTE
    return found


@pytest.mark.parametrize("route", ["/score?machine_id=fan-1", "/enroll?machine_id=fan-1", "/score"])
def test_an_announced_body_is_refused_on_its_header(address: tuple[str, int], route: str) -> None:
    head = f"POST {route} HTTP/1.1\r\nHost: x\r\nContent-Length: {25 * MEBIBYTE}\r\n\r\n"
    answer, sent = exchange(address, head, iter([b"x" * 1_000] * 20))
    problem(answer)
    assert sent < 100_000


def test_a_body_of_unstated_length_is_refused_when_it_passes_the_limit(address: tuple[str, int]) -> None:
    head = "POST /score?machine_id=fan-1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n%s\r\n" % (65_536, b"x" * 65_536)
    answer, sent = exchange(address, head, iter([chunk] * 400))
    problem(answer)
    assert sent < 10 * MEBIBYTE


def test_a_multipart_body_counts_as_a_whole(address: tuple[str, int]) -> None:
    head = (
        "POST /enroll?machine_id=fan-1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    )
    part = b'--b\r\nContent-Disposition: form-data; name="clips"; filename="a.wav"\r\n\r\n' + b"x" * 65_536 + b"\r\n"
    answer, sent = exchange(address, head, iter([b"%x\r\n%s\r\n" % (len(part), part)] * 400))
    problem(answer)
    assert sent < 10 * MEBIBYTE


def test_a_json_body_has_the_same_limit(address: tuple[str, int]) -> None:
    head = (
        "PUT /machines/fan-1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {5 * MEBIBYTE}\r\n\r\n"
    )
    answer, _ = exchange(address, head, iter([b" " * 1_000] * 20))
    problem(answer)


def test_a_client_that_sends_everything_first_sees_the_problem(address: tuple[str, int], tmp_path: Path) -> None:
    clip = tmp_path / "large.wav"
    clip.write_bytes(b"x" * (25 * MEBIBYTE))
    with Client(f"http://{address[0]}:{address[1]}") as client, pytest.raises(ProblemError) as refused:
        client.score("fan-1", [clip])
    assert refused.value.kind == "body-too-large"
