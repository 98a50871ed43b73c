"""Assign an id to every request, time and log it, and answer unexpected errors."""

import logging
import uuid

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from offkey.errors import ErrorKind
from service.http.problems import problem_response
from service.telemetry.metrics import Metrics
from service.telemetry.stages import Stages

logger = logging.getLogger("offkey.request")

_QUIET_ROUTES = {"/livez", "/readyz", "/metrics"}  # polled every few seconds


class Observe:
    """Assigns an id (`X-Request-ID`) to each request, and counts, times and logs it.

    Unexpected errors are answered here as an internal problem, and their traceback is logged with the id. Starlette's
    own handler for them runs outside of every middleware, where the id is unavailable.
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
        status, answered = 500, False  # until an answer starts

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
            if answered:  # in part: only a closed connection shows the client that it is incomplete
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
    detail = "The service failed; the log has the reason. Report it with the request id."
    return problem_response(ErrorKind.INTERNAL, detail, instance=path, request_id=request_id)
