"""Work for a client that has left neither begins nor continues."""

import re
import socket
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import httpx2
import numpy as np
import pytest

from launch import as_process

Encode = Callable[..., bytes]
pytestmark = pytest.mark.xdist_group("clients-that-leave")  # one service for all
ABANDONED = "offkey_requests_abandoned_total"
MEASURED = 'offkey_stage_seconds_count{stage="acoustics"}'


class Api:
    """Requests to a service of one worker with a bank, over sockets that can be closed."""

    def __init__(self, url: str, fan: Encode) -> None:
        self.url = url
        self.clip = fan(9)
        self.http = httpx2.Client(base_url=url, timeout=60)
        self.http.put("/machines/fan-1")
        files = [("clips", (f"{number}.wav", fan(number))) for number in range(3)]
        assert self.http.post("/enroll", params={"machine_id": "fan-1"}, files=files).status_code == 201

    def send(self, clip: bytes, path: str = "/score", kind: str = "audio/wav") -> socket.socket:
        """Send a request, and return before its answer is read."""
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        connection = socket.create_connection((parts.hostname, parts.port), timeout=30)
        head = (
            f"POST {path}?machine_id=fan-1 HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(clip)}"
        )
        connection.sendall(f"{head}\r\n\r\n".encode() + clip)
        return connection

    def metric(self, name: str) -> float:
        """Read a metric, also while the worker is busy."""
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.http.get("/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def embedded(self) -> float:
        return self.metric('offkey_stage_seconds_count{stage="embed"}')

    def until(self, name: str, value: float) -> None:
        """Wait until a metric reaches a value."""
        deadline = time.monotonic() + 30
        while self.metric(name) < value:
            assert time.monotonic() < deadline, (name, self.metric(name))
            time.sleep(0.002)

    def until_idle(self) -> None:
        deadline = time.monotonic() + 60
        while self.metric('offkey_slots{pool="work"}'):
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, fan: Encode) -> Iterator[Api]:
    with as_process(tmp_path_factory.mktemp("data"), workers=1) as running:
        made = Api(running.url, fan)
        yield made
        made.http.close()


@pytest.fixture(scope="module")
def long(encode: Encode) -> bytes:
    """A clip of ten minutes, 119 windows."""
    return encode(0.1 * np.random.default_rng(0).standard_normal(600 * 16_000), subtype="PCM_16")


def test_requests_that_wait_are_dropped_before_the_model(api: Api, long: bytes) -> None:
    abandoned = api.metric(ABANDONED)
    before, generation = api.embedded(), api.http.get("/machines/fan-1").json()["generation"]
    part = b'--b\r\nContent-Disposition: form-data; name="clips"; filename="a.wav"\r\n\r\n'
    form = part + api.clip + b"\r\n--b--\r\n"
    with api.send(long), api.send(long), api.send(long):
        waiting = []
        for path in ("/score", "/enroll", "/feedback", "/noise"):
            waiting += [api.send(api.clip, path) for _ in range(4)]
            waiting += [api.send(form, path, "multipart/form-data; boundary=b") for _ in range(4)]
        api.until('offkey_slots{pool="work"}', 33)  # the first two of the long ones may have ended
        for connection in waiting:
            connection.close()
        api.until(ABANDONED, abandoned + 32)
        api.until_idle()
        assert api.embedded() == before + 3
    assert api.http.get("/machines/fan-1").json()["generation"] == generation
    assert api.http.get("/machines/fan-1/noise").json() == {"noise": []}
    assert api.http.post("/score?machine_id=fan-1", content=api.clip).status_code == 200


def test_a_request_that_runs_ends_at_its_next_window(api: Api, long: bytes) -> None:
    stage = 'offkey_stage_seconds_sum{stage="embed"}'
    before, abandoned = api.metric(stage), api.metric(ABANDONED)
    with api.send(long) as connection:
        assert connection.recv(1)
        api.until_idle()
    whole = api.metric(stage) - before
    measured = api.metric(MEASURED)
    with api.send(long):
        api.until(MEASURED, measured + 1)  # it is decoded, so only the windows are left
    api.until_idle()
    api.until(ABANDONED, abandoned + 1)
    # The only thread is free again, so the time of the abandoned request is complete.
    assert api.http.post("/score?machine_id=fan-1", content=api.clip).status_code == 200
    assert api.metric(stage) - before - whole < 0.5 * whole
