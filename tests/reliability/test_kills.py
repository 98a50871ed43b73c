"""Processes killed without warning: the service while it enrolls, decoders while clips are scored."""

import io
import os
import random
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from pathlib import Path

import httpx2
import pytest
import soundfile
from fastapi.testclient import TestClient

from offkey.client import Client
from torture import scaled

KILLS = int(os.environ.get("OFFKEY_KILLS", scaled(1_000, 6)))
SHARD = min(6, KILLS)  # kills in one test, so that tests can run side by side
SECONDS = float(scaled(20, 3))

needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads Linux's /proc")


def stored(data_dir: Path) -> dict[int, str]:
    """Names of the enrolled clips by id, of a store that must be whole."""
    (path,) = data_dir.glob("*.sqlite3")
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert raw.execute("PRAGMA foreign_key_check").fetchall() == []
        # A clip of 1 s is one window.
        halves = (
            "SELECT count(*) FROM clip WHERE (SELECT count(*) FROM embedding e WHERE e.clip_id = clip.clip_id) != 1"
        )
        assert raw.execute(halves).fetchone() == (0,)
        rows = raw.execute("SELECT clip_id, name FROM clip").fetchall()
        (generation,) = raw.execute("SELECT generation FROM machine").fetchone()
    assert len({name for _, name in rows}) == len(rows) == generation
    return dict(rows)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("shard", range(KILLS // SHARD))
def test_nothing_acknowledged_is_lost_by_kill_9(
    running: Callable[..., AbstractContextManager["tuple[subprocess.Popen[bytes], Client]"]],
    tmp_path: Path,
    fan: Callable[..., bytes],
    shard: int,
) -> None:
    """After each kill: all that was acknowledged is there, once and whole; what was not can be sent again."""
    rng = random.Random(shard)
    base = fan(shard, seconds=1.0)
    clips = [base[:-4] + number.to_bytes(4, "little") for number in range(4_000)]
    acknowledged: dict[int, str] = {}
    unsure: set[int] = set()
    next_clip = iter(range(len(clips)))
    lock = threading.Lock()

    def enroll(url: str, number: int) -> None:
        answer = httpx2.post(
            f"{url}/enroll",
            params={"machine_id": "fan-1", "name": f"{number}", "force": True},
            content=clips[number],
            timeout=30,
        )
        assert answer.status_code in (200, 201), answer.text
        clip = answer.json()["clips"][0]
        with lock:
            assert acknowledged.setdefault(clip["clip_id"], f"{number}") == f"{number}"
            unsure.discard(number)

    def enroll_on(url: str) -> None:
        while True:
            with lock:
                number = next(next_clip)
                unsure.add(number)
            try:
                enroll(url, number)
            except httpx2.TransportError:
                return

    for _ in range(SHARD):
        with running(tmp_path, workers=2) as (process, client), ThreadPoolExecutor(2) as pool:
            url = client.url
            httpx2.put(f"{url}/machines/fan-1")
            for number in sorted(unsure):
                enroll(url, number)
            before = len(acknowledged)
            enrolling = [pool.submit(enroll_on, url) for _ in range(2)]
            time.sleep(rng.uniform(0.05, 0.5))
            process.send_signal(signal.SIGKILL)
            for one in enrolling:
                one.result(30)
        found = stored(tmp_path)
        assert acknowledged.items() <= found.items()
        assert {int(name) for name in found.values()} <= {int(name) for name in acknowledged.values()} | unsure
        assert len(acknowledged) >= before


@needs_proc
@pytest.mark.timeout(300)
def test_decoders_killed_at_random_cost_single_answers(
    fan_api: TestClient, fan: Callable[..., bytes], encode: Callable[..., bytes]
) -> None:
    """Every answer is the right score or 503, none takes long, and the rest of the service does not notice."""
    decoders = fan_api.app.state.service.decoder.pool
    # Plain WAV would be read without a decoder.
    clips = [encode(soundfile.read(io.BytesIO(fan(number)))[0], container="FLAC") for number in range(10, 14)]

    def score(number: int) -> httpx2.Response:
        return fan_api.post("/score", params={"machine_id": "fan-1"}, content=clips[number])

    right = [score(number).json()["clips"][0]["anomaly_score"] for number in range(len(clips))]
    until = time.monotonic() + SECONDS
    done = threading.Event()

    def ask(number: int) -> list[int]:
        statuses = []
        while time.monotonic() < until:
            start = time.monotonic()
            answer = score(number)
            assert time.monotonic() - start < 5.0
            if answer.status_code == 200:
                assert answer.json()["clips"][0]["anomaly_score"] == right[number]
            else:
                assert answer.json()["type"] == "urn:offkey:problem:decoder-lost"
                assert int(answer.headers["retry-after"]) > 0
            statuses.append(answer.status_code)
        return statuses

    def kill() -> int:
        rng, kills = random.Random(0), 0
        while not done.wait(rng.uniform(0.002, 0.02)):
            fork_server = decoders._process.pid
            try:
                below = [
                    int(pid) for pid in Path(f"/proc/{fork_server}/task/{fork_server}/children").read_text().split()
                ]
                if pids := [fork_server] * (rng.random() < 0.03) or below:
                    os.kill(rng.choice(pids), signal.SIGKILL)
                    kills += 1
            except (FileNotFoundError, ProcessLookupError):
                pass
        return kills

    with ThreadPoolExecutor(len(clips) + 1) as pool:
        killer = pool.submit(kill)
        asked = [pool.submit(ask, number) for number in range(len(clips))]
        statuses = [status for one in asked for status in one.result(SECONDS + 30)]
        done.set()
        kills = killer.result(10)
    assert kills > 20
    assert statuses.count(200) > 20
    assert [score(number).status_code for number in range(len(clips))] == [200] * len(clips)
