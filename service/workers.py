"""A bounded pool of threads that do the work of requests, one CPU thread each."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import ParamSpec, TypeVar

from service.domain.errors import ErrorKind, OffkeyError

P = ParamSpec("P")
T = TypeVar("T")

RETRY_AFTER_SECONDS = 1


class Permit:
    """Leave to run one job after another. Given by `Workers.permit`."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self._executor = executor

    async def run(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking job on a worker thread; waits for one to be free."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: job(*args, **kwargs))


class Workers:
    """Runs `workers` jobs at once and lets `queue_limit` more wait; refuses the rest at once."""

    def __init__(self, workers: int, queue_limit: int) -> None:
        self._capacity = workers + queue_limit
        self._permits = 0  # changed on the event loop alone
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="offkey-worker")

    @asynccontextmanager
    async def permit(self) -> AsyncIterator[Permit]:
        """Hold a place for a request from before its body is read, which bounds the memory that bodies take.

        Raises:
            OffkeyError: as many requests are running and waiting as are allowed.
        """
        if self._permits >= self._capacity:
            raise OffkeyError(
                ErrorKind.OVERLOADED,
                f"{self._permits} requests are running or waiting, which is the limit. "
                f"Send it again in {RETRY_AFTER_SECONDS} s.",
                retry_after=RETRY_AFTER_SECONDS,
            )
        self._permits += 1
        try:
            yield Permit(self._executor)
        finally:
            self._permits -= 1

    async def run(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a job that needs no body. Raises as `permit` does."""
        async with self.permit() as permit:
            return await permit.run(job, *args, **kwargs)

    def close(self) -> None:
        """Let running jobs end, drop those that wait."""
        self._executor.shutdown(wait=True, cancel_futures=True)
