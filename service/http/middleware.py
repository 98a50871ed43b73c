"""Around every request: an id, a measurement, a log line, an answer when all else fails, and a bound on its body."""

import asyncio
import logging
import uuid
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from offkey.errors import ErrorKind, OffkeyError
from service.http.problems import problem_response
from service.telemetry.metrics import Metrics
from service.telemetry.stages import Stages

logger = logging.getLogger("offkey.request")

ZIP = "application/zip"

_LINGER_SECONDS = 2.0
_QUIET_ROUTES = {"/livez", "/readyz", "/metrics"}  # asked every few seconds by machines


class Observe:
    """Gives each request an id (`X-Request-ID`), counts it, times it, and logs it when it is answered.

    What nothing below handles is answered here as an internal problem, and its traceback is logged with the
    id: Starlette's own place for that is outside of every middleware, where neither the id nor the header is.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex
        stages = Stages(self._metrics.stage)
        scope.setdefault("state", {}).update(request_id=request_id, stages=stages)
        status, answered = 500, False  # unless an answer says otherwise

        async def send_observed(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], True
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_observed)
        except Exception:
            logger.exception("request %s failed", request_id)
            if answered:  # in part; only closing the connection tells the client
                raise
            await _internal(scope["path"], request_id)(scope, receive, send_observed)
        finally:
            seconds = stages.end()
            route = getattr(scope.get("route"), "path", "unmatched")
            self._metrics.request(scope["method"], route, status, seconds)
            level = logging.DEBUG if route in _QUIET_ROUTES else logging.INFO
            logger.log(
                level,
                "%s %s -> %d in %.0f ms, request %s",
                scope["method"],
                route,
                status,
                seconds * 1e3,
                request_id,
            )


def _internal(path: str, request_id: str) -> Response:
    detail = "The service failed; the log says why. Report it with the request id."
    return problem_response(ErrorKind.INTERNAL, detail, instance=path, request_id=request_id)


class BodyLimit:
    """Refuses a body over the limit as soon as it is known to be, by its header or by counting."""

    def __init__(self, app: ASGIApp, max_bytes: int, max_zip_bytes: int) -> None:
        """`max_zip_bytes` is for archives, which go to disk."""
        self._app = app
        self._max_bytes = max_bytes
        self._max_zip_bytes = max_zip_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        is_zip = scope["path"] == "/enroll" and headers.get("content-type", "").partition(";")[0].strip().lower() == ZIP
        most = self._max_zip_bytes if is_zip else self._max_bytes
        announced = headers.get("content-length", "")
        refused = announced.isdigit() and int(announced) > most
        received = 0

        async def receive_limited() -> Message:
            nonlocal received, refused
            if refused:
                raise _too_large(most)
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                refused = True
                raise _too_large(most)
            return message

        async def send_and_linger(message: Message) -> None:
            if not refused:
                await send(message)
            elif message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Connection"] = "close"
                await send(message)
            else:
                # A server that closes with unread data resets the connection, and a client that is still
                # sending loses the answer with it. So the answer goes out, what comes in is thrown away for
                # a moment, and only then the answer ends.
                await send({**message, "more_body": True})
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LINGER_SECONDS):
                        while (await receive()).get("more_body", False):
                            pass
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app(scope, receive_limited, send_and_linger)


def _too_large(most: int) -> OffkeyError:
    return OffkeyError(
        ErrorKind.BODY_TOO_LARGE,
        f"The request body is over {most} bytes. Send fewer or shorter clips, or use FLAC.",
        max_body_bytes=most,
    )
