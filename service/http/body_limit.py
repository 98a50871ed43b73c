"""Bound the bytes of a request body. The limit belongs to the route."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from offkey.errors import ErrorKind, OffkeyError
from service.settings import Settings
from service.usecases.service import Service

_LINGER_SECONDS = 2.0


class BodyLimit:
    """Refuses a body over the limit as soon as its header states it or its bytes exceed it."""

    def __init__(self, app: ASGIApp, max_bytes: Callable[[Settings, Headers], int]) -> None:
        """Wrap the ASGI application of a route. `max_bytes` returns the limit for a request's headers."""
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        service: Service = scope["app"].state.service
        limit = self._max_bytes(service.settings, headers)
        stated = headers.get("content-length", "")
        refused = stated.isdigit() and int(stated) > limit
        received = 0

        async def receive_limited() -> Message:
            nonlocal received, refused
            if refused:
                raise _too_large(limit)
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                refused = True
                raise _too_large(limit)
            return message

        async def send_and_linger(message: Message) -> None:
            if not refused:
                await send(message)
            elif message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Connection"] = "close"
                await send(message)
            else:
                # A server that closes with unread data resets the connection, and a client that is still sending
                # loses the answer with it. So the answer is sent, incoming data is discarded for a moment, and only
                # then the answer ends.
                await send({**message, "more_body": True})
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LINGER_SECONDS):
                        while (await receive()).get("more_body", False):
                            pass
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app(scope, receive_limited, send_and_linger)


def _too_large(limit: int) -> OffkeyError:
    return OffkeyError(
        ErrorKind.BODY_TOO_LARGE,
        f"The request body is over {limit} bytes. Send fewer or shorter clips, or use FLAC.",
        max_body_bytes=limit,
    )
