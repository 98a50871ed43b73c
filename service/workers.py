"""A bounded pool of threads that do the work of requests, one CPU thread each."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from service.domain.errors import ErrorKind, OffkeyError

P = ParamSpec("P")
T = TypeVar("T")

RETRY_AFTER_SECONDS = 1


class Workers:
    """Runs `workers` jobs at once and lets `queue_limit` more wait; refuses the rest at once."""

    def __init__(self, workers: int, queue_limit: int) -> None:
        self._capacity = workers + queue_limit
        self._admitted = 0  # changed on the event loop alone
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="offkey-worker")

    async def run(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking job on a worker thread.

        Raises:
            OffkeyError: as many jobs are running and waiting as are allowed.
        """
        if self._admitted >= self._capacity:
            raise OffkeyError(
                ErrorKind.OVERLOADED,
                f"{self._admitted} requests are running or waiting, which is the limit. "
                f"Send it again in {RETRY_AFTER_SECONDS} s.",
                retry_after=RETRY_AFTER_SECONDS,
            )
        self._admitted += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._executor, lambda: job(*args, **kwargs))
        finally:
            self._admitted -= 1

    def close(self) -> None:
        """Let running jobs end, drop those that wait."""
        self._executor.shutdown(wait=True, cancel_futures=True)
