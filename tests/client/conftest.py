"""Run the same tests with the blocking and with the asynchronous client."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx2
import pytest

from offkey import AsyncClient, Client


class Awaited:
    """An `AsyncClient` with the interface of `Client`: each call runs to its end on an event loop."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._runner = asyncio.Runner()

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            return self._runner.run(_finish(attribute, *args, **kwargs))

        return call if callable(attribute) else attribute

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


async def _finish(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    result = call(*args, **kwargs)
    if isinstance(result, AsyncIterator):
        return [item async for item in result]
    return await result if inspect.isawaitable(result) else result


class Recorder:
    """A service that gives prepared responses in order, the last one forever, and records the requests."""

    def __init__(self, *responses: httpx2.Response | Exception) -> None:
        self.requests: list[httpx2.Request] = []
        self._responses = responses

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        response = self._responses[min(len(self.requests), len(self._responses)) - 1]
        if isinstance(response, Exception):
            raise response
        return httpx2.Response(response.status_code, headers=response.headers, content=response.content)


class _RecorderTransport(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        return self._recorder(request)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        return self._recorder(request)


@pytest.fixture
def record() -> type[Recorder]:
    """`record(*responses)` -> service that gives these responses, and records the requests."""
    return Recorder


@pytest.fixture(params=["blocking", "asynchronous"])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """`connect(service, **options)` -> client of a `Recorder` or of an address."""
    clients: list[Client | Awaited] = []

    def make(service: Recorder | str, **options: Any) -> Any:
        url = service if isinstance(service, str) else "http://offkey.test"
        transport = None if isinstance(service, str) else _RecorderTransport(service)
        if request.param == "blocking":
            clients.append(Client(url, http_transport=transport, **options))
        else:
            clients.append(Awaited(AsyncClient(url, http_transport=transport, **options)))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits between attempts, in seconds. The clients do not wait."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("offkey.client.time.sleep", waited.append)
    monkeypatch.setattr("offkey.async_client.asyncio.sleep", sleep)
    return waited
