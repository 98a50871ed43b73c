"""A typed, asynchronous client of the HTTP API: `await AsyncClient().score("fan-1", "clip.wav")`."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self

import httpx2

from offkey import requests, transport
from offkey.atomic import replacing
from offkey.methods import describe
from offkey.requests.request import Answer, Item, Listing, Page, Request
from offkey.retry import Retry
from offkey.schemas import Job
from offkey.vocabulary import UNFINISHED

P = ParamSpec("P")


def _call(build: Callable[P, Request[Answer]]) -> "Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, Answer]]":
    """Make a method that sends the request that `build` returns."""

    async def method(client: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> Answer:
        # On a thread, because it reads the clips from the disk.
        return await client.send(await asyncio.to_thread(build, *args, **kwargs))

    return describe(method, build)


def _list(build: Callable[P, Listing[Page, Item]]) -> "Callable[Concatenate[AsyncClient, P], AsyncIterator[Item]]":
    """Make a method that yields the entries of the listing that `build` returns, page by page."""

    def method(client: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[Item]:
        return client.items(build(*args, **kwargs))

    return describe(method, build, AsyncIterator)


class AsyncClient:
    """A connection to one service, for any number of tasks of one event loop.

    It has the methods of `Client`. They are awaited, except for those that list: `async for clip in client.clips(...)`.
    """

    def __init__(
        self,
        url: str = transport.DEFAULT_URL,
        *,
        key: str | None = None,
        timeout: float = transport.DEFAULT_TIMEOUT,
        retries: int = transport.DEFAULT_RETRIES,
        http_transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        """Prepare the connection. The first call opens it.

        Args:
            url: address of the service.
            key: API key; None for the environment variable OFFKEY_KEY, if it is set.
            timeout: limit of one attempt, in seconds.
            retries: limit of attempts after the first. An attempt is repeated if the service answers 429 or 503 with
                `Retry-After`, or if the connection breaks and a second attempt changes nothing.
            http_transport: transport of httpx2, for proxies, certificates and tests; None for the default one.

        Raises:
            OffkeyError: the key does not have the form of a key.
        """
        self.url = url.rstrip("/")
        self._retries = retries
        self._http = httpx2.AsyncClient(
            base_url=self.url, timeout=timeout, headers=transport.authorization(key), transport=http_transport
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    score = _call(requests.clips.score)
    enroll = _call(requests.clips.enroll)
    enroll_archive = _call(requests.clips.enroll_archive)
    feedback = _call(requests.clips.feedback)
    add_noise = _call(requests.clips.add_noise)

    machines = _list(requests.machines.machines)
    machine = _call(requests.machines.machine)
    put_machine = _call(requests.machines.put_machine)
    delete_machine = _call(requests.machines.delete_machine)
    threshold = _call(requests.machines.threshold)
    put_threshold = _call(requests.machines.put_threshold)
    reset_threshold = _call(requests.machines.reset_threshold)
    drift = _call(requests.machines.drift)
    clips = _list(requests.machines.clips)
    delete_clip = _call(requests.machines.delete_clip)
    noise = _call(requests.machines.noise)
    delete_noise = _call(requests.machines.delete_noise)

    jobs = _list(requests.jobs.jobs)
    job = _call(requests.jobs.job)
    job_entries = _list(requests.jobs.job_entries)
    cancel_job = _call(requests.jobs.cancel_job)
    start_snapshot = _call(requests.jobs.start_snapshot)
    snapshots = _call(requests.jobs.snapshots)
    delete_snapshot = _call(requests.jobs.delete_snapshot)
    models = _call(requests.jobs.models)
    reembed = _call(requests.jobs.reembed)

    api_keys = _list(requests.keys.api_keys)
    create_key = _call(requests.keys.create_key)
    revoke_key = _call(requests.keys.revoke_key)
    audit = _list(requests.keys.audit)

    info = _call(requests.operations.info)
    metrics = _call(requests.operations.metrics)

    async def alive(self) -> bool:
        """Return whether the process of the service answers. Never raises."""
        return await self._probe("/livez")

    async def ready(self) -> bool:
        """Return whether the service can serve requests. Never raises."""
        return await self._probe("/readyz")

    async def wait(
        self,
        job: Job | int,
        *,
        timeout: float | None = None,
        poll_seconds: float = 0.3,
        on_progress: Callable[[Job], None] | None = None,
    ) -> Job:
        """Wait until a job is done, failed or canceled, and return it.

        Args:
            job: job, or its id.
            timeout: limit of the wait, in seconds; None for no limit.
            poll_seconds: time between two requests, in seconds.
            on_progress: function that is called with each state of the job, the last one included.

        Raises:
            TimeoutError: the job is not finished in time. It continues.
        """
        job_id = job if isinstance(job, int) else job.job_id
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            current = await self.job(job_id)
            if on_progress is not None:
                on_progress(current)
            if current.state not in UNFINISHED:
                return current
            if deadline is not None and time.monotonic() + poll_seconds > deadline:
                raise TimeoutError(f"Job {job_id} is not finished after {timeout:g} s; it continues.")
            await asyncio.sleep(poll_seconds)

    async def download_snapshot(self, name: str, path: str | os.PathLike[str]) -> Path:
        """Write a snapshot of the service to a file, and return its path.

        The file is streamed and appears when it is complete. Only its owner can read it: it contains hashes of keys.

        Args:
            name: name of the snapshot.
            path: file to write or replace, or folder to write to.
        """
        request = requests.jobs.download_snapshot(name)
        target = transport.download_target(path, name)
        response = await self._exchange(request, stream=True)
        try:
            with replacing(target) as temporary, open(temporary, "xb", opener=transport.open_private) as file:
                async for block in response.aiter_bytes(transport.BLOCK_BYTES):
                    await asyncio.to_thread(file.write, block)
                # On a thread, so that `replacing` has nothing left to flush on the event loop.
                file.flush()
                await asyncio.to_thread(os.fsync, file.fileno())
        except httpx2.HTTPError as error:
            raise transport.unreachable(self.url, error) from error
        finally:
            await response.aclose()
        return target

    async def send(self, request: Request[Answer]) -> Answer:
        """Send a request of `offkey.requests` and return its answer."""
        return transport.read(self.url, request, await self._exchange(request))

    async def items(self, listing: Listing[Page, Item]) -> AsyncIterator[Item]:
        """Yield the entries of a listing of `offkey.requests`. A page is requested when its first entry is needed."""
        following: Request[Page] | None = listing.first
        while following is not None:
            page = await self.send(following)
            for item in listing.items(page):
                yield item
            following = listing.next(page)

    async def _probe(self, path: str) -> bool:
        try:
            return (await self._http.get(path, timeout=transport.PROBE_TIMEOUT)).is_success
        except httpx2.HTTPError:
            return False

    async def _exchange(self, request: Request[Any], *, stream: bool = False) -> httpx2.Response:
        """Send a request until a response is final. The body of a successful response is unread if `stream` is set."""
        retry = Retry(self._retries, is_idempotent=request.is_idempotent)
        while True:
            try:
                built = self._http.build_request(**transport.options(request, is_async=True))
                response = await self._http.send(built, stream=True)
                if not (stream and response.is_success):
                    await response.aread()
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                wait = retry.after_error(error)
                if wait is None:
                    raise transport.unreachable(self.url, error) from error
            else:
                wait = retry.after_response(response)
                if wait is None:
                    transport.check(self.url, response)
                    return response
            await asyncio.sleep(wait)
