"""Admit a bounded number of requests to bounded pools of threads. Independent of HTTP."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ParamSpec, Self, TypeVar

from offkey.errors import ErrorKind, OffkeyError
from service.audio.budget import Budget, stopping_error

P = ParamSpec("P")
T = TypeVar("T")

RETRY_AFTER_SECONDS = 1

# Probes, lists and authentication have threads of their own, so that no load of clips delays them.
_AUTH_THREADS = 2
_LIGHT_THREADS = 2
# Archives uploaded at once; as many wait. An upload takes minutes and must not take a slot from clips.
_ARCHIVE_THREADS = 2


class CallerLeftError(Exception):
    """The caller left before the answer."""


class Slot:
    """A place in a pool, from which jobs are run one after another. Created by `WorkPool.slot`."""

    def __init__(self, pool: "WorkPool") -> None:
        self._pool = pool

    @property
    def stopping(self) -> threading.Event:
        """Event that is set when the service is about to end. A long job checks it and gives up."""
        return self._pool.stopping

    async def run(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking job on a thread of the pool. Waits until one is free."""
        return await asyncio.wrap_future(self._pool.submit(lambda: job(*args, **kwargs)))

    async def run_until(self, caller_left: Awaitable[object], budget: Budget, job: Callable[[], T]) -> T:
        """Run a blocking job unless its caller leaves first.

        Args:
            caller_left: completes when the caller has left.
            budget: budget of the request; it is marked as unwanted when the caller leaves, which stops the job.
            job: the work.

        Raises:
            CallerLeftError: the caller left.
        """
        work = asyncio.wrap_future(self._pool.submit(job))
        left = asyncio.ensure_future(caller_left)
        try:
            await asyncio.wait((work, left), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            raise CallerLeftError
        finally:
            if not work.done():
                budget.unwanted.set()
                work.cancel()
            left.cancel()


class WorkPool:
    """Runs `threads` jobs at once and lets `queue_limit` more wait. The rest are refused at once."""

    def __init__(self, threads: int, queue_limit: int, *, name: str = "worker") -> None:
        self.stopping = threading.Event()
        self._capacity = threads + queue_limit
        self._held: set[asyncio.Timeout] = set()  # one for each slot; changed only on the event loop
        self._jobs: set[Future[Any]] = set()
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=f"offkey-{name}")

    @property
    def slots(self) -> int:
        """Number of requests that run or wait."""
        return len(self._held)

    @property
    def busy(self) -> bool:
        """Whether a thread is at work."""
        return bool(self._jobs)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[Slot]:
        """Hold a slot for a request. Taken before its body is read, so that slots bound the memory of bodies.

        Raises:
            OffkeyError: all slots are taken, or the service is stopping.
        """
        if self.stopping.is_set():
            raise stopping_error()
        if self.slots >= self._capacity:
            raise OffkeyError(
                ErrorKind.OVERLOADED,
                f"{self.slots} requests are running or waiting, which is the limit. "
                f"Send it again in {RETRY_AFTER_SECONDS} s.",
                retry_after=RETRY_AFTER_SECONDS,
            )
        try:
            async with asyncio.timeout(None) as held:  # expires when `stop` reschedules it
                self._held.add(held)
                try:
                    yield Slot(self)
                finally:
                    self._held.discard(held)
        except TimeoutError:
            if held.expired():
                raise stopping_error() from None
            raise

    async def run(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a job that needs no body. Raises as `slot` does."""
        async with self.slot() as slot:
            return await slot.run(job, *args, **kwargs)

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Queue a job for the threads."""
        future = self._executor.submit(job)
        self._jobs.add(future)
        future.add_done_callback(self._jobs.discard)
        return future

    def stop(self) -> None:
        """Answer every request that holds a slot with 503, and signal running jobs to give up."""
        self.stopping.set()
        now = asyncio.get_running_loop().time()
        for held in self._held:
            held.reschedule(now)

    async def close(self, seconds: float) -> None:
        """Drop waiting jobs and wait up to `seconds` for running ones. A job in one long call may outlast that."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(wait, set(self._jobs), seconds)


@dataclass(frozen=True)
class Admission:
    """The pools of one service.

    Attributes:
        auth_pool: looks up keys.
        light_pool: reads a page of the store and no more; never decodes, writes or builds a bank.
        work_pool: decodes, embeds, scores, writes.
        archive_pool: receives archives.
    """

    auth_pool: WorkPool
    light_pool: WorkPool
    work_pool: WorkPool
    archive_pool: WorkPool

    @classmethod
    def create(cls, threads: int, queue_limit: int) -> Self:
        """Create the pools. `threads` and `queue_limit` are those of the work pool."""
        return cls(
            auth_pool=WorkPool(_AUTH_THREADS, queue_limit, name="auth"),
            light_pool=WorkPool(_LIGHT_THREADS, queue_limit, name="light"),
            work_pool=WorkPool(threads, queue_limit, name="work"),
            archive_pool=WorkPool(_ARCHIVE_THREADS, _ARCHIVE_THREADS, name="archive"),
        )

    def __iter__(self) -> Iterator[WorkPool]:
        return iter(self.by_name.values())

    @property
    def by_name(self) -> dict[str, WorkPool]:
        """The pools by the name that metrics report."""
        return {
            "archive": self.archive_pool,
            "work": self.work_pool,
            "light": self.light_pool,
            "auth": self.auth_pool,
        }

    @property
    def busy(self) -> bool:
        """Whether a thread of any pool is at work."""
        return any(pool.busy for pool in self)
