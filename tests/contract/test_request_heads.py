"""The head of a request is bounded: a client cannot fill the memory with headers, or with what else has no length."""

import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from launch import as_process

LINE = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"POST /score?machine_id=fan-1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
MEBIBYTE = 2**20
pytestmark = pytest.mark.xdist_group("request-heads")  # one service for all


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with as_process(tmp_path_factory.mktemp("data")) as running:
        yield running.url


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service that waits 1 s for the head of a request."""
    with as_process(tmp_path_factory.mktemp("data"), max_header_seconds=1) as running:
        yield running.url


def send(url: str, start: bytes, endless: bytes) -> tuple[bytes, int]:
    """Send `endless` again and again until the server has had enough; return its answer and the bytes sent."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    sent, answer = 0, b""
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        connection.sendall(start)
        try:
            while endless and sent < 20 * MEBIBYTE:
                connection.sendall(endless)
                sent += len(endless)
            answer = connection.recv(65_536)
        except OSError:  # it closed while we were sending
            pass
    return answer, sent


@pytest.mark.parametrize(
    ("start", "endless"),
    [
        (b"", b"GET /" + b"x" * MEBIBYTE),
        (LINE, b"X-A: " + b"b" * MEBIBYTE + b"\r\n"),
        (LINE, b"X-A: b\r\n" * 10_000),
        (LINE + b"X-A: ", b"b" * MEBIBYTE),
        (CHUNKED + b"0\r\n", b"X-Trailer: b\r\n" * 10_000),
        (CHUNKED, b"5;" + b"x" * MEBIBYTE),
    ],
    ids=["request line", "long headers", "many headers", "one header", "trailers", "chunk extensions"],
)
def test_what_never_ends_is_cut_off(url: str, start: bytes, endless: bytes) -> None:
    answer, sent = send(url, start, endless)
    assert b" 200 " not in answer
    assert sent < 8 * MEBIBYTE  # what the sockets' buffers take


def test_a_head_within_the_limit_is_read(url: str) -> None:
    answer, _ = send(url, LINE + b"X-A: " + b"b" * 30_000 + b"\r\nConnection: close\r\n\r\n", b"")
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_a_head_over_the_limit_is_answered_400(url: str) -> None:
    answer, _ = send(url, LINE + b"X-A: " + b"b" * 40_000, b"")
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_a_body_in_chunks_of_one_byte_is_no_flood(url: str) -> None:
    body = b"1\r\nx\r\n" * 60_000 + b"0\r\n\r\n"  # six times as many bytes as there are in the body
    answer, _ = send(url, CHUNKED + body, b"")
    assert answer.startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("start", [b"", LINE, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /livez HTTP/1.1\r\n"])
def test_a_head_that_does_not_come_to_its_end_is_cut_off(impatient: str, start: bytes) -> None:
    """Also the second one of a connection, and one of which there is a byte now and then."""
    parts = urlsplit(impatient)
    with socket.create_connection((str(parts.hostname), int(str(parts.port))), timeout=20) as connection:
        connection.sendall(start)
        answer, begin = b"", time.monotonic()
        connection.settimeout(0.2)
        while time.monotonic() < begin + 15:
            try:
                part = connection.recv(65_536)
            except TimeoutError:
                connection.sendall(b"X" if start else b"")  # goes on the last line
                continue
            answer += part
            if not part:
                break
    assert answer.split(b"HTTP/1.1 ")[-1].startswith(b"408 ")
    assert answer.count(b"HTTP/1.1 200 ") == start.count(b"\r\n\r\n")
    assert 0.5 < time.monotonic() - begin < 12
