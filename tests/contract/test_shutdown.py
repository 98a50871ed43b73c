"""SIGTERM: the process ends in the time it states, with status 0, and every request gets an answer."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2

from offkey.client import Client

SECONDS = 3  # OFFKEY_SHUTDOWN_SECONDS: 1 for the requests, 2 for the answers


@contextmanager
def service(data_dir: Path, **environ: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {"OFFKEY_PORT": str(port), "OFFKEY_DATA_DIR": str(data_dir), "OFFKEY_WORKERS": "1"}
    own["OFFKEY_SHUTDOWN_SECONDS"] = str(SECONDS)
    process = subprocess.Popen([sys.executable, "-m", "service.cli", "serve"], env={**os.environ, **own, **environ})
    try:
        with Client(f"http://127.0.0.1:{port}") as client:
            while not client.ready():
                assert process.poll() is None, "the service ended while it was starting"
                time.sleep(0.05)
        yield process, port
    finally:
        process.kill()
        process.wait(10)


def test_what_does_not_end_in_time_is_answered_503(tmp_path: Path, dense: bytes, fan: Callable[..., bytes]) -> None:
    with (
        service(tmp_path, OFFKEY_MAX_DECODED_SAMPLES=str(10**10)) as (process, port),
        ThreadPoolExecutor(8) as pool,
        socket.create_connection(("127.0.0.1", port), timeout=20) as slow,
    ):
        url = f"http://127.0.0.1:{port}"
        httpx2.put(f"{url}/machines/fan-1")

        def enroll(data: bytes) -> tuple[httpx2.Response, float]:
            answer = httpx2.post(f"{url}/enroll?machine_id=fan-1", content=data, timeout=60)
            return answer, time.monotonic()

        slow.sendall(b"POST /enroll?machine_id=fan-1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        asked = [pool.submit(enroll, dense)]  # runs
        time.sleep(0.3)
        asked += [pool.submit(enroll, fan(number)) for number in range(3)]  # wait for the only worker
        time.sleep(0.3)
        assert not any(one.done() for one in asked)
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        answers = [one.result(30) for one in asked]
        slow.settimeout(5)
        told = b""
        while part := slow.recv(65_536):  # head and body come apart
            told += part
        head, _, body = told.partition(b"\r\n\r\n")
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
    with service(tmp_path) as (process, port), socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        httpx2.put(f"http://127.0.0.1:{port}/machines/fan-1")
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
