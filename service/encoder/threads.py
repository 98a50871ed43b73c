"""Over how many threads a run of the graph goes here: measured once for a bundle and a machine, and remembered."""

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

from service.audio.decode import Samples
from service.encoder.processor import cores, processor_name
from service.encoder.runner import INPUT

logger = logging.getLogger(__name__)

# A core more is worth it only if it gives so much: it is taken from decoding, from search, and from other programs.
_FASTER = 1.15
_MORE = 1.05
_SECONDS = 0.3  # of each way that is tried
_FEWEST = 3  # runs of each


@dataclass(frozen=True)
class ThreadCounts:
    """Threads of a run.

    Attributes:
        alone: of one that is the only one.
        crowded: of one beside others.
    """

    idle_threads: Annotated[int, Field(ge=1)]
    busy_threads: Annotated[int, Field(ge=1)]

    @property
    def workers(self) -> int:
        """Requests to work on at once: one more than runs that cores are for, as one of them is not in the model."""
        return max(cores() // self.busy_threads, 1) + 1


SINGLE = ThreadCounts(1, 1)


class _Remembered(BaseModel):
    """What is kept of a measurement."""

    found_for: dict[str, object]
    threads: ThreadCounts


def find_thread_counts(
    open_session: Callable[[int], ort.InferenceSession], window: Samples, model_sha256: str, remembered: Path
) -> ThreadCounts:
    """The layout of a bundle on this machine.

    Args:
        open_session: opens the graph for runs over so many threads.
        window: `(samples,)` as the model is asked.
        model_sha256: of the graph.
        remembered: file that is read and written; a layout found for another machine, graph or runtime is not used.
    """
    found_for = {
        "model_sha256": model_sha256,
        "onnxruntime": ort.__version__,
        "processor": processor_name(),
        "cores": cores(),
    }
    thread_counts = _read(remembered, found_for)
    if thread_counts is None:
        thread_counts = measure(open_session, window, cores())
        logger.info(
            "measured threads of a run: %d when it is alone, %d beside others",
            thread_counts.idle_threads,
            thread_counts.busy_threads,
        )
        _write(remembered, found_for, thread_counts)
    return thread_counts


def measure(open_session: Callable[[int], ort.InferenceSession], window: Samples, cores: int) -> ThreadCounts:
    """Try 1, 2, 4, ... threads: how long one run takes, and how many runs side by side come to an end."""
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

        run(0)  # warm
        seconds.append(statistics.median(_repeat(run)))
        rates.append(_rate(run, max(cores // threads, 1), seconds[-1]))
    return ThreadCounts(_fewest(tried, [1 / one for one in seconds], _FASTER), _fewest(tried, rates, _MORE))


def _repeat(run: Callable[[int], float]) -> list[float]:
    times: list[float] = []
    while len(times) < _FEWEST or sum(times) < _SECONDS:
        times.append(run(0))
    return times


def _rate(run: Callable[[int], float], callers: int, seconds: float) -> float:
    count = callers * max(_FEWEST, round(_SECONDS / seconds))
    with ThreadPoolExecutor(callers) as pool:
        start = time.perf_counter()
        list(pool.map(run, range(count)))
        return count / (time.perf_counter() - start)


def _fewest(tried: Sequence[int], gain: Sequence[float], worth: float) -> int:
    """The number of threads that the next larger ones do not better by the factor `worth`."""
    best = 0
    for index in range(1, len(tried)):
        if gain[index] > worth * gain[best]:
            best = index
    return tried[best]


def _read(file: Path, found_for: dict[str, object]) -> ThreadCounts | None:
    try:
        kept = _Remembered.model_validate_json(file.read_bytes())
    except (OSError, ValueError):  # none is kept, or it is damaged: it can be measured again
        return None
    return kept.threads if kept.found_for == found_for else None


def _write(file: Path, found_for: dict[str, object], thread_counts: ThreadCounts) -> None:
    part = file.with_name(f"{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(
            _Remembered(found_for=found_for, threads=thread_counts).model_dump_json(indent=2), encoding="utf-8"
        )
        part.replace(file)
    except OSError as error:  # a full disk, a volume that is read only: it is measured at each start
        logger.warning("the thread layout cannot be kept in %s: %s", file, error)


def faint_noise(seconds: float, sample_rate: int) -> Samples:
    """A window of faint noise, to measure with: of pure silence some processors compute at another speed."""
    return (0.01 * np.random.default_rng(0).standard_normal(round(seconds * sample_rate))).astype(np.float32)
