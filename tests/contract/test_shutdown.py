"""SIGTERM: the process ends in the time it states, with status 0, and every request gets an answer."""

import json
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2

from launch import as_process

SECONDS = 3  # time for shutting down: 1 for the requests, 2 for the answers
BUSY = {"workers": 1, "shutdown_seconds": SECONDS}


def test_what_does_not_end_in_time_is_answered_503(tmp_path: Path, dense: bytes, fan: Callable[..., bytes]) -> None:
    with (
        as_process(tmp_path, **BUSY, max_decoded_samples=10**10) as running,
        ThreadPoolExecutor(8) as pool,
        socket.create_connection((running.host, running.port), timeout=20) as slow,
    ):
        url, process = running.url, running.process
        httpx2.put(f"{url}/machines/fan-1")

        def enroll(data: bytes) -> tuple[httpx2.Response, float]:
            answer = httpx2.post(f"{url}/enroll?machine_id=fan-1", content=data, timeout=60)
            return answer, time.monotonic()

        slow.sendall(b"POST /enroll?machine_id=fan-1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        sent = [pool.submit(enroll, dense)]  # runs
        time.sleep(0.3)
        sent += [pool.submit(enroll, fan(number)) for number in range(3)]  # wait for the only worker
        time.sleep(0.3)
        assert not any(one.done() for one in sent)
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        answers = [one.result(30) for one in sent]
        slow.settimeout(5)
        received = b""
        while part := slow.recv(65_536):  # head and body come apart
            received += part
        head, _, body = received.partition(b"\r\n\r\n")
        assert process.wait(30) == 0
        assert time.monotonic() - start < SECONDS
    for answer, at in answers:
        assert answer.status_code == 503, answer.text
        assert answer.json()["type"] == "urn:offkey:problem:stopping"
        assert int(answer.headers["retry-after"]) > 0
        assert at - start < SECONDS
    assert b" 503 " in head.split(b"\r\n")[0]
    assert json.loads(body)["type"] == "urn:offkey:problem:stopping"


def test_what_ends_in_time_is_answered(tmp_path: Path, fan: Callable[..., bytes]) -> None:
    """The clip is on its way when the signal comes; its last bytes come after it."""
    data = fan(0)
    with (
        as_process(tmp_path, **BUSY) as running,
        socket.create_connection((running.host, running.port), timeout=20) as connection,
    ):
        process = running.process
        httpx2.put(f"{running.url}/machines/fan-1")
        httpx2.post(f"{running.url}/enroll?machine_id=fan-1", content=fan(1))  # the first one synthesizes noise
        head = f"POST /enroll?machine_id=fan-1 HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
        connection.sendall(head.encode() + data[:-10])
        time.sleep(0.3)
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        connection.sendall(data[-10:])
        assert b" 201 " in connection.recv(65_536).split(b"\r\n")[0]
        connection.close()
        assert process.wait(30) == 0
        assert time.monotonic() - start < SECONDS
