"""Bounded pools of threads that do the work of requests."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, TypeVar

from starlette.requests import ClientDisconnect, Request

from offkey.errors import ErrorKind, OffkeyError
from service.audio.budget import Budget, stopping_error

P = ParamSpec("P")
T = TypeVar("T")

RETRY_AFTER_SECONDS = 1


class Slot:
    """Leave to run one job after another. Given by `Workers.permit`."""

    def __init__(self, workers: "WorkPool") -> None:
        self._workers = workers

    @property
    def stopping(self) -> threading.Event:
        """Set when the service is about to end. A long job looks at it and gives up."""
        return self._workers.stopping

    async def run(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking job on a worker thread; waits for one to be free."""
        return await asyncio.wrap_future(self._workers.submit(lambda: job(*args, **kwargs)))

    async def run_for(self, request: Request, budget: Budget, job: Callable[[], T]) -> T:
        """As `run`, for a client that may leave: then the job is not begun, or is told by the request's budget.

        Raises:
            ClientDisconnect: the client left.
        """
        work = asyncio.wrap_future(self._workers.submit(job))
        left = asyncio.ensure_future(_disconnect(request))
        try:
            await asyncio.wait((work, left), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            raise ClientDisconnect
        finally:
            if not work.done():
                budget.unwanted.set()
                work.cancel()
            left.cancel()


async def _disconnect(request: Request) -> None:
    """Return when the client has left. Its body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class WorkPool:
    """Runs `workers` jobs at once and lets `queue_limit` more wait; refuses the rest at once."""

    def __init__(self, workers: int, queue_limit: int, *, name: str = "worker") -> None:
        self.stopping = threading.Event()
        self._capacity = workers + queue_limit
        self._held: set[asyncio.Timeout] = set()  # one for each permit; changed on the event loop alone
        self._jobs: set[Future[Any]] = set()
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix=f"offkey-{name}")

    @property
    def slots(self) -> int:
        """Requests that are running or waiting."""
        return len(self._held)

    @property
    def busy(self) -> bool:
        """Whether a thread is at work."""
        return bool(self._jobs)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[Slot]:
        """Hold a place for a request from before its body is read, which bounds the memory that bodies take.

        Raises:
            OffkeyError: as many requests are running and waiting as are allowed, or the service is stopping.
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
            async with asyncio.timeout(None) as held:  # expires when `stop` says so
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
        """Run a job that needs no body. Raises as `permit` does."""
        async with self.slot() as slot:
            return await slot.run(job, *args, **kwargs)

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Hand a job to the threads."""
        future = self._executor.submit(job)
        self._jobs.add(future)
        future.add_done_callback(self._jobs.discard)
        return future

    def stop(self) -> None:
        """Answer every request that holds a permit with 503, and tell the jobs that run to give up."""
        self.stopping.set()
        now = asyncio.get_running_loop().time()
        for held in self._held:
            held.reschedule(now)

    async def close(self, seconds: float) -> None:
        """Drop what waits, and wait up to `seconds` for what runs. A job in one long call may outlast that."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(wait, set(self._jobs), seconds)
