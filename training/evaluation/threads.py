"""Runs jobs on a few threads, each with one CPU thread of the model runtime."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

_Job = TypeVar("_Job")
_Found = TypeVar("_Found")


def in_threads(work: Callable[[_Job], _Found], jobs: Iterable[_Job], workers: int) -> Iterator[tuple[_Job, _Found]]:
    """Yield each job with its result in the order of completion; the first failure cancels all others.

    Args:
        work: function of a job.
        jobs: arguments of `work`.
        workers: number of threads; 0 is one per core.
    """
    with ThreadPoolExecutor(workers or _cores(), thread_name_prefix="offkey-embed") as pool:
        running = {pool.submit(work, job): job for job in jobs}
        try:
            for done in as_completed(running):
                yield running[done], done.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
