"""Number of threads of one run of the graph: measured once per bundle and computer, and cached in a file."""

import logging
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import onnxruntime as ort
from pydantic import BaseModel, Field

from offkey.atomic import write_text
from service.audio.decode import Samples
from service.encoder.processor import cores, processor_name
from service.encoder.runner import INPUT

logger = logging.getLogger(__name__)

# Smallest gains that justify more threads, which decoding, search and other programs cannot use then.
_MIN_SPEEDUP = 1.15  # ratio of the time of a single run
_MIN_GAIN = 1.05  # ratio of the throughput of concurrent runs
_SECONDS = 0.3  # time to measure each number of threads
_MIN_RUNS = 3


@dataclass(frozen=True)
class ThreadCounts:
    """Numbers of threads of one run.

    Attributes:
        idle_threads: threads of a single run.
        busy_threads: threads of each of several concurrent runs.
    """

    idle_threads: Annotated[int, Field(ge=1)]
    busy_threads: Annotated[int, Field(ge=1)]

    @property
    def workers(self) -> int:
        """Return the number of concurrent requests: as many as runs fill the cores, and two at least.

        With one more, threads contend for the lock of Python: 3.5 % more CPU time for each clip on two cores, and no
        more clips per second.
        """
        return max(cores() // self.busy_threads, 2)


SINGLE = ThreadCounts(1, 1)


class _CachedCounts(BaseModel):
    """Content of the cache file."""

    key: dict[str, object]
    threads: ThreadCounts


def find_thread_counts(
    open_session: Callable[[int], ort.InferenceSession], window: Samples, model_sha256: str, cache_file: Path
) -> ThreadCounts:
    """Return the thread counts of a bundle on this computer, from the cache file or by a measurement.

    Args:
        open_session: function that opens the graph for runs with a number of threads.
        window: window of the usual length, `(samples,)`.
        model_sha256: SHA-256 of the graph.
        cache_file: file to read and write. Counts for another processor, graph or runtime are not used.
    """
    key: dict[str, object] = {
        "model_sha256": model_sha256,
        "onnxruntime": ort.__version__,
        "processor": processor_name(),
        "cores": cores(),
    }
    thread_counts = _read(cache_file, key)
    if thread_counts is None:
        thread_counts = measure(open_session, window, cores())
        logger.info(
            "measured threads per run: %d for a single run, %d for concurrent runs",
            thread_counts.idle_threads,
            thread_counts.busy_threads,
        )
        _write(cache_file, key, thread_counts)
    return thread_counts


def measure(open_session: Callable[[int], ort.InferenceSession], window: Samples, cores: int) -> ThreadCounts:
    """Measure the time of a single run and the throughput of concurrent runs with 1, 2, 4, ... threads."""
    tried = [1]
    while tried[-1] < cores:
        tried.append(min(2 * tried[-1], cores))
    seconds, rates = [], []
    for threads in tried:
        session = open_session(threads)

        def run(_: int, session: ort.InferenceSession = session) -> float:
            start = time.perf_counter()
            session.run(None, {INPUT: window[None, :]})
            return time.perf_counter() - start

        run(0)  # warm up
        seconds.append(statistics.median(_repeat(run)))
        rates.append(_rate(run, max(cores // threads, 1), seconds[-1]))
    return ThreadCounts(_fewest(tried, [1 / one for one in seconds], _MIN_SPEEDUP), _fewest(tried, rates, _MIN_GAIN))


def _repeat(run: Callable[[int], float]) -> list[float]:
    times: list[float] = []
    while len(times) < _MIN_RUNS or sum(times) < _SECONDS:
        times.append(run(0))
    return times


def _rate(run: Callable[[int], float], callers: int, seconds: float) -> float:
    count = callers * max(_MIN_RUNS, round(_SECONDS / seconds))
    with ThreadPoolExecutor(callers) as pool:
        start = time.perf_counter()
        list(pool.map(run, range(count)))
        return count / (time.perf_counter() - start)


def _fewest(tried: Sequence[int], speeds: Sequence[float], min_gain: float) -> int:
    """Return the smallest number of threads that no larger number exceeds by the factor `min_gain`."""
    best = 0
    for index in range(1, len(tried)):
        if speeds[index] > min_gain * speeds[best]:
            best = index
    return tried[best]


def _read(file: Path, key: dict[str, object]) -> ThreadCounts | None:
    try:
        cached = _CachedCounts.model_validate_json(file.read_bytes())
    except (OSError, ValueError):  # absent or damaged: it is measured again
        return None
    return cached.threads if cached.key == key else None


def _write(file: Path, key: dict[str, object], thread_counts: ThreadCounts) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, _CachedCounts(key=key, threads=thread_counts).model_dump_json(indent=2))
    except OSError as error:  # for example a full disk or a read-only volume
        logger.warning("the thread counts cannot be cached in %s and are measured at each start: %s", file, error)


def faint_noise(seconds: float, sample_rate: int) -> Samples:
    """Create a window of faint noise to measure with. Some processors compute pure silence at another speed."""
    return (0.01 * np.random.default_rng(0).standard_normal(round(seconds * sample_rate))).astype(np.float32)
