"""The disk fails at every write and every fsync of a change: what is answered is true, and nothing is half done.

The faults are the kernel's: strace makes a system call of the running service fail, one after another.
"""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service.store.database.sqlite import DATABASE_FILE
from service.store.snapshot.check import check_database

FAULTS = [("pwrite64", "ENOSPC"), ("pwrite64", "EIO"), ("fdatasync", "EIO"), ("fdatasync", "ENOSPC")]
MOST = 12  # calls of a kind in one change
FAN = {"machine_id": "fan-1"}


@pytest.fixture
def strace() -> str:
    found = shutil.which("strace")
    if found is None:
        pytest.skip("strace is not installed")
    return found


@contextmanager
def failing(strace: str, pid: int, call: str, error: str, number: int, log: Path) -> Iterator[None]:
    """The `number`th call of the service fails, and no other."""
    words = [
        strace,
        "-f",
        "-qq",
        "-o",
        str(log),
        "-e",
        f"trace={call}",
        "-e",
        f"inject={call}:error={error}:when={number}",
    ]
    tracer = subprocess.Popen([*words, "-p", str(pid)], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 20
        while not all(_traced(task) for task in Path(f"/proc/{pid}/task").iterdir()):
            if tracer.poll() is not None:
                assert tracer.stderr is not None
                pytest.skip(f"strace may not trace here: {tracer.stderr.read().decode()[:200]}")
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield
    finally:
        tracer.terminate()
        tracer.wait(10)
        assert tracer.stderr is not None
        tracer.stderr.close()


def _traced(task: Path) -> bool:
    try:
        return "TracerPid:\t0\n" not in (task / "status").read_text()
    except FileNotFoundError:  # the thread has ended
        return True


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("call", "error"), FAULTS)
def test_a_change_whose_disk_fails_is_refused_and_nothing_is_half_done(
    serve: Callable[..., str],
    processes: list["subprocess.Popen[bytes]"],
    strace: str,
    tmp_path: Path,
    fan: Callable[..., bytes],
    call: str,
    error: str,
) -> None:
    data, log = tmp_path / "data", tmp_path / "strace.log"
    http = httpx2.Client(base_url=serve(data), timeout=60, verify=False)
    base = fan(0, seconds=1.0)
    clips = (base[:-4] + number.to_bytes(4, "little") for number in range(10_000))
    enrolled: set[int] = set()
    unsure: set[int] = set()  # deleted, but not acknowledged
    rates: list[float | None] = [None]  # the last one that was acknowledged, and what may have come after

    def enroll() -> Any:
        answer = http.post("/enroll", params={**FAN, "force": "true"}, content=next(clips))
        enrolled.update(clip["clip_id"] for clip in answer.json()["clips"]) if answer.status_code == 201 else None
        return answer

    def remove() -> Any:
        clip_id = min(enrolled - unsure)
        answer = http.delete(f"/machines/fan-1/clips/{clip_id}")
        (enrolled.discard if answer.status_code == 200 else unsure.add)(clip_id)
        return answer

    def threshold() -> Any:
        rate = 0.01 + len(rates) / 1_000
        answer = http.put("/machines/fan-1/threshold", json={"false_alarm_rate": rate})
        rates[:] = [rate] if answer.status_code == 200 else [*rates, rate]
        return answer

    http.put("/machines/fan-1")
    for _ in range(2 * MOST):
        assert enroll().status_code == 201
    faults = 0
    for change in (enroll, remove, threshold):
        for number in range(1, MOST + 1):
            log.unlink(missing_ok=True)
            with failing(strace, processes[0].pid, call, error, number, log):
                answer = change()
                scored = http.post("/score", params=FAN, content=base)
            hit = "INJECTED" in log.read_text()
            if answer.status_code in (503, 507):
                assert answer.json()["status"] == answer.status_code
                faults += 1
            else:
                assert answer.is_success, answer.text
            assert scored.status_code == 200, scored.text
            if not hit:
                break
        assert enroll().status_code == 201  # by itself, once the disk does its work again
    assert faults >= 3  # at least one of each change
    listed = {clip["clip_id"] for clip in http.get("/machines/fan-1/clips", params={"limit": 1_000}).json()["clips"]}
    http.close()
    processes[0].kill()
    processes[0].wait(10)
    assert check_database(data / DATABASE_FILE).damage == ()
    with httpx2.Client(base_url=serve(data), timeout=60, verify=False) as again:
        kept = {clip["clip_id"] for clip in again.get("/machines/fan-1/clips", params={"limit": 1_000}).json()["clips"]}
        machine = again.get("/machines/fan-1").json()
        assert enrolled - unsure <= kept
        assert kept == listed
        assert machine["clips"]["source"] == len(kept)
        assert machine["threshold_settings"]["false_alarm_rate"] in rates
        assert again.post("/score", params=FAN, content=base).status_code == 200
    processes[0].returncode = 0  # it was killed on purpose
