"""Clients that trickle, stall or leave: answered, and their places given to others."""

import json
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from launch import as_process
from offkey.client import Client

HEAD = b"POST /score?machine_id=fan-1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n%s\r\n"
FORM = b"Content-Type: multipart/form-data; boundary=b\r\n"
pytestmark = pytest.mark.xdist_group("slow-clients")  # one service for all


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with as_process(tmp_path_factory.mktemp("data"), workers=1, queue_limit=1, max_body_seconds=1) as running:
        yield running.url


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return socket.create_connection((parts.hostname, parts.port), timeout=20)


def read_problem(connection: socket.socket) -> bytes:
    answer = b""
    while not answer.endswith(b"}"):
        more = connection.recv(65_536)
        assert more, answer
        answer += more
    return answer


@pytest.mark.parametrize("header", [b"", FORM], ids=["raw", "multipart"])
def test_a_body_that_does_not_come_is_answered_408(url: str, header: bytes) -> None:
    with connect(url) as connection:
        connection.sendall(HEAD % header + b"--b\r\n")
        start = time.monotonic()
        answer = read_problem(connection)
    assert b" 408 " in answer.split(b"\r\n")[0]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["type"].endswith("slow-body")
    assert time.monotonic() - start < 10


def test_uploads_beyond_the_limit_are_refused_before_they_are_read(url: str) -> None:
    first, second, third = (connect(url) for _ in range(3))
    with first, second, third:
        for connection in (first, second):
            connection.sendall(HEAD % b"")
        time.sleep(0.3)
        third.sendall(HEAD % b"")
        answer = read_problem(third)
    assert b" 503 " in answer.split(b"\r\n")[0]
    assert b"retry-after: 1" in answer.lower()


def test_a_client_that_leaves_gives_its_place_back(url: str) -> None:
    for _ in range(5):
        with connect(url) as connection:
            connection.sendall(HEAD % b"" + b"x" * 10)
    time.sleep(0.3)
    with Client(url) as client:
        client.put_machine("fan-1")
        assert client.machine("fan-1").machine_id == "fan-1"
