"""Decoding in child processes: the same results, and a child that fails affects one clip."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from offkey.errors import ErrorKind, OffkeyError
from service.audio.budget import Budget
from service.audio.decode import AudioLimits, decode
from service.audio.processes import DecoderPool
from service.audio.processes.messages import DecodeLimits

RATE = 16_000
LIMITS = AudioLimits()
MEBIBYTE = 2**20
Encode = Callable[..., bytes]

needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads Linux's /proc")


def decode_limits(*, max_bytes: int = 20 * MEBIBYTE, cpu_seconds: int = 10) -> DecodeLimits:
    return DecodeLimits(LIMITS, max_bytes, cpu_seconds)


@pytest.fixture
def pool() -> Iterator[DecoderPool]:
    opened = DecoderPool(decode_limits(), wall_seconds=30.0)
    yield opened
    opened.close()


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * RATE)).astype(np.float32)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def living(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def refused(pool: DecoderPool, data: bytes, budget: Budget | None = None) -> OffkeyError:
    with pytest.raises(OffkeyError) as error:
        pool.decode(data, RATE, budget or Budget())
    return error.value


def eventually(true: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def busy_worker(pool: DecoderPool) -> int:
    """Wait until a worker decodes. Returns its process id."""
    fork_server = pool._process.pid

    def cpu() -> int:
        return sum(
            map(int, Path(f"/proc/{children(fork_server)[0]}/stat").read_text().rpartition(")")[2].split()[11:13])
        )

    eventually(lambda: bool(children(fork_server)) and cpu() > 10)  # ticks, 100 a second
    return children(fork_server)[0]


@pytest.mark.parametrize(("container", "sample_rate"), [("WAV", 16_000), ("FLAC", 48_000), ("OGG", 8_000)])
def test_a_child_returns_what_decoding_in_this_process_returns(
    pool: DecoderPool, encode: Encode, container: str, sample_rate: int
) -> None:
    samples = np.stack([noise(25.0, 1)[: sample_rate * 9], noise(25.0, 2)[: sample_rate * 9]], axis=1)
    samples[:1_000] = 1.0
    data = encode(samples, sample_rate, container=container)
    for rate in (2 * RATE, RATE):
        here, there = decode(data, sample_rate=rate, limits=LIMITS), pool.decode(data, rate)
        np.testing.assert_array_equal(here.samples, there.samples)
        assert there.sample_rate == rate
    assert (there.source_sample_rate, there.source_channels, there.seconds) == (sample_rate, 2, here.seconds)
    assert there.source_clipped == here.source_clipped > 0
    assert (type(there.source_sample_rate), type(there.source_channels)) == (int, int)


def test_refusals_are_the_same(pool: DecoderPool, encode: Encode) -> None:
    nan = noise(1.0)
    nan[7] = np.nan
    for data in (b"", b"no sound", encode(np.zeros(RATE)), encode(nan, subtype="FLOAT"), encode(noise(1.0), 1_000)):
        with pytest.raises(OffkeyError) as here:
            decode(data, sample_rate=RATE, limits=LIMITS)
        there = refused(pool, data)
        assert (there.kind, there.detail, there.values) == (here.value.kind, here.value.detail, here.value.values)


def test_the_clips_of_a_request_share_a_budget(pool: DecoderPool, encode: Encode) -> None:
    data, budget = encode(noise(2.0)), Budget(5 * RATE)
    pool.decode(data, RATE, budget)
    pool.decode(data, RATE, budget)
    assert budget.left == RATE
    error = refused(pool, data, budget)
    assert (error.kind, error.values) == (ErrorKind.TOO_MUCH_AUDIO, {"max_decoded_samples": 5 * RATE})


@needs_proc
def test_a_worker_decodes_many_clips_and_is_replaced_after_a_refusal(pool: DecoderPool, encode: Encode) -> None:
    data = encode(noise(1.0))
    pool.decode(data, RATE)
    first = children(pool._process.pid)
    for _ in range(5):
        pool.decode(data, RATE)
    assert children(pool._process.pid) == first
    refused(pool, b"no sound")
    pool.decode(data, RATE)
    assert children(pool._process.pid) != first


def test_cpu_time_is_limited_for_each_clip(dense: bytes, encode: Encode) -> None:
    pool = DecoderPool(decode_limits(cpu_seconds=1), wall_seconds=60.0)
    try:
        for _ in range(30):  # together more than a second
            pool.decode(encode(noise(60.0), container="FLAC", subtype="PCM_16"), RATE)
        error = refused(pool, dense)
        assert (error.kind, error.values) == (ErrorKind.COSTLY_AUDIO, {"max_decode_cpu_seconds": 1})
        assert pool.lost == {"cpu": 1, "crash": 0, "killed": 0, "time": 0}
        assert pool.decode(encode(noise(1.0)), RATE).seconds == 1.0
    finally:
        pool.close()


@needs_proc
def test_a_clip_that_is_not_decoded_in_time_is_refused_and_its_worker_killed(dense: bytes, encode: Encode) -> None:
    pool = DecoderPool(decode_limits(), wall_seconds=0.5)
    try:
        pool.check()
        start = time.monotonic()
        error = refused(pool, dense)
        assert time.monotonic() - start < 1.5
        assert (error.kind, error.values) == (ErrorKind.DECODER_LOST, {"retry_after": 1})
        eventually(lambda: not children(pool._process.pid))
        assert pool.decode(encode(noise(1.0)), RATE).seconds == 1.0
    finally:
        pool.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits address space")
def test_memory_is_limited(encode: Encode) -> None:
    pool = DecoderPool(decode_limits(max_bytes=-45 * MEBIBYTE), wall_seconds=30.0)  # leaves 3 MiB
    try:
        wide = np.repeat(noise(5.0)[:, None], 16, axis=1)  # 4 MiB per block
        error = refused(pool, encode(wide, subtype="PCM_16"))
        assert error.kind in (ErrorKind.UNDECODABLE_AUDIO, ErrorKind.DECODER_LOST)
        assert pool.decode(encode(noise(0.5), subtype="PCM_16"), RATE).seconds == 0.5
    finally:
        pool.close()


def test_the_largest_clip_fits_into_the_memory(pool: DecoderPool, encode: Encode) -> None:
    data = encode(np.repeat(noise(38.0)[:, None], 16, axis=1), subtype="PCM_16")
    assert 18 * MEBIBYTE < len(data) < 20 * MEBIBYTE
    assert pool.decode(data, RATE).seconds == 38.0
    long = encode(np.tile(noise(60.0), 10), 8_000, subtype="PCM_U8")[: 44 + 599 * 8_000]
    long = long[:40] + (599 * 8_000).to_bytes(4, "little") + long[44:]
    assert pool.decode(long, RATE).seconds == 599.0
    assert pool.peak_bytes < 100 * MEBIBYTE


@needs_proc
@pytest.mark.parametrize(
    ("number", "kind"),
    [(signal.SIGSEGV, ErrorKind.UNDECODABLE_AUDIO), (signal.SIGABRT, ErrorKind.UNDECODABLE_AUDIO),
     (signal.SIGKILL, ErrorKind.DECODER_LOST)],
)  # fmt: skip
def test_a_killed_worker_affects_only_its_own_clip(
    pool: DecoderPool, dense: bytes, encode: Encode, number: signal.Signals, kind: ErrorKind
) -> None:
    with ThreadPoolExecutor(1) as threads:
        lost = threads.submit(refused, pool, dense)
        os.kill(busy_worker(pool), number)
        assert lost.result(10).kind is kind
        assert pool.decode(encode(noise(1.0)), RATE).seconds == 1.0


@needs_proc
def test_a_fork_server_that_is_killed_is_started_again(pool: DecoderPool, dense: bytes, encode: Encode) -> None:
    with ThreadPoolExecutor(1) as threads:
        lost = threads.submit(refused, pool, dense)
        child = busy_worker(pool)
        os.kill(pool._process.pid, signal.SIGKILL)
        assert lost.result(10).kind is ErrorKind.DECODER_LOST
    eventually(lambda: not living(child))
    assert pool.decode(encode(noise(1.0)), RATE).seconds == 1.0


@needs_proc
def test_idle_workers_that_were_killed_do_not_affect_a_clip(pool: DecoderPool, encode: Encode) -> None:
    data = encode(noise(1.0))
    pool.decode(data, RATE)
    for child in children(pool._process.pid):
        os.kill(child, signal.SIGKILL)
        eventually(lambda child=child: not living(child))
    assert pool.decode(data, RATE).seconds == 1.0


@needs_proc
def test_workers_ignore_terminal_and_supervisor_signals(pool: DecoderPool, encode: Encode) -> None:
    pool.check()
    for number in (signal.SIGINT, signal.SIGTERM):
        for pid in (pool._process.pid, *children(pool._process.pid)):
            os.kill(pid, number)
    assert pool.decode(encode(noise(1.0)), RATE).seconds == 1.0
    assert pool.lost["killed"] == 0


@needs_proc
@pytest.mark.parametrize("how", ["stopping", "closed"])
def test_a_busy_worker_is_killed_when_the_service_ends(pool: DecoderPool, dense: bytes, how: str) -> None:
    stopping = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        lost = threads.submit(refused, pool, dense, Budget(stopping=stopping))
        child = busy_worker(pool)
        stopping.set() if how == "stopping" else pool.close()
        assert lost.result(2).kind is ErrorKind.STOPPING
    eventually(lambda: not living(child))
    assert how == "closed" or pool._process.poll() is None


_OWNER = """
import sys, threading, time
from pathlib import Path
from service.audio.decode import AudioLimits
from service.audio.processes import DecoderPool
from service.audio.processes.messages import DecodeLimits
pool = DecoderPool(DecodeLimits(AudioLimits(), 20 * 2**20, 60), wall_seconds=60.0)
pool.check()
threading.Thread(target=pool.decode, args=[Path(sys.argv[1]).read_bytes()], daemon=True).start()
print(pool._process.pid, flush=True)
time.sleep(60)
"""


@needs_proc
def test_no_process_outlives_a_service_that_is_killed(tmp_path: Path, dense: bytes) -> None:
    (tmp_path / "dense.flac").write_bytes(dense)
    command = [sys.executable, "-c", _OWNER, str(tmp_path / "dense.flac")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        fork_server = int(owner.stdout.readline())
        eventually(lambda: bool(children(fork_server)))
        below = [fork_server, *children(fork_server)]
        owner.kill()
    eventually(lambda: not any(living(pid) for pid in below), 2.0)


def test_workers_import_only_what_decoding_needs() -> None:
    script = (
        "import service.audio.processes.fork_server, sys; "
        "print({'onnxruntime', 'sqlalchemy', 'fastapi'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "set()\n"
