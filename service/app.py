"""Puts the application together."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from offkey.errors import ErrorKind, OffkeyError
from offkey.schemas import Problem
from offkey.vocabulary import JobKind
from service import __version__
from service.http.middleware import BodyLimit, Observe
from service.http.problems import problem_response
from service.http.routes import clips, jobs, keys, machines, operations
from service.jobs.archives import EnrollArchive, sweep_archives
from service.jobs.handler import Kind
from service.jobs.reembed import Reembed
from service.jobs.runner import Runner
from service.jobs.snapshots import MakeSnapshot, sweep_snapshots
from service.settings import Settings
from service.usecases.admission import WorkPool
from service.usecases.authenticate import Authenticator
from service.usecases.drift import watch_drift
from service.usecases.service import Context

# Probes and lists have threads of their own, so that no load of clips keeps them waiting, and so has the look at keys,
# so that no crowd before the door does.
_READERS = 2
_GATEKEEPERS = 2
# Archives that are uploaded at once; as many wait. They take minutes, and no turn from clips.
_UPLOADS = 2
_CLOSE_SECONDS = 0.5
_JOBS: Mapping[JobKind, Kind] = {
    JobKind.ENROLL: EnrollArchive(),
    JobKind.SNAPSHOT: MakeSnapshot(),
    JobKind.REEMBED: Reembed(),
}
_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
_ROUTING_ERRORS = {404: ErrorKind.UNKNOWN_ROUTE, 405: ErrorKind.METHOD_NOT_ALLOWED}


def create_app(settings: Settings) -> FastAPI:
    """Load the bundle, open the store, and return the application that serves them.

    Raises:
        BundleError, DeviceError: the encoder cannot be used.
        NurseryError: no decoder can be started.
        OSError, OffkeyError: the data folder cannot be used.
        OpenToNetworkError: there is no key, and others than this computer could reach the service.
    """
    context = Context.open(settings)
    try:
        authenticator = Authenticator(settings, context.store)
    except BaseException:
        context.close()
        raise
    workers = WorkPool(context.workers, settings.queue_limit)
    light_pool = WorkPool(_READERS, settings.queue_limit, name="reader")
    auth_pool = WorkPool(_GATEKEEPERS, settings.queue_limit, name="gatekeeper")
    uploads = WorkPool(_UPLOADS, _UPLOADS, name="upload")
    runner = Runner(context, _JOBS)
    pools = {"uploads": uploads, "workers": workers, "readers": light_pool, "gatekeepers": auth_pool}
    context.metrics.watch_jobs(context.store.jobs.states)
    context.metrics.watch(**{name: partial(getattr, pool, "slots") for name, pool in pools.items()})

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sweep_archives(context)
        sweep_snapshots(context)
        context.score_buffer.start(partial(watch_drift, context))
        runner.start()
        try:
            yield
        finally:
            runner.stop()
            runner.join(_CLOSE_SECONDS)
            for pool in pools.values():
                pool.stop()
                await pool.close(_CLOSE_SECONDS)
            context.close()

    # The pages at /docs and /redoc come from the package, not from a CDN: factories have no internet.
    app = FastAPIOffline(
        title="Offkey",
        version=__version__,
        description="Anomalous sound detection: enroll a healthy machine, score every clip after.",
        lifespan=lifespan,
    )
    # FastAPI documents this way of changing its document: the method of the one application is replaced.
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    app.state.context = context
    app.state.authenticator = authenticator
    app.state.workers = workers
    app.state.light_pool = light_pool
    app.state.auth_pool = auth_pool
    app.state.uploads = uploads
    app.state.runner = runner
    app.state.pools = tuple(pools.values())
    for router in (clips.router, machines.router, jobs.router, keys.router, operations.router, operations.open_router):
        app.include_router(router)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, max_zip_bytes=settings.max_zip_bytes)
    app.add_middleware(Observe, metrics=context.metrics)
    app.add_exception_handler(OffkeyError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _not_routed)
    app.add_exception_handler(ClientDisconnect, _left)
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        # Errors are answered as problem+json, for which FastAPI has no way to name a model.
        schema["components"]["schemas"]["Problem"] = Problem.model_json_schema()
        app.openapi_schema = schema
    return app.openapi_schema


def _answer(request: Request, error: OffkeyError, headers: dict[str, str] | None = None) -> Response:
    request.app.state.context.metrics.refused(error.kind.value)
    return problem_response(
        error.kind,
        error.detail,
        instance=request.url.path,
        request_id=request.state.request_id,
        values=error.values,
        headers=headers,
    )


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, OffkeyError)
    return _answer(request, error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = "; ".join(f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()[:5])
    return _answer(request, OffkeyError(ErrorKind.MALFORMED_REQUEST, f"{found}. See /docs."))


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, OffkeyError):  # FastAPI wraps what goes wrong while it reads a JSON body
        return _answer(request, error.__cause__)
    kind = _ROUTING_ERRORS.get(error.status_code, ErrorKind.MALFORMED_REQUEST)
    detail = {
        ErrorKind.UNKNOWN_ROUTE: f"There is nothing at {request.url.path}. /docs lists what there is.",
        ErrorKind.METHOD_NOT_ALLOWED: f"{request.url.path} does not take {request.method}. /docs lists what it takes.",
    }.get(kind, f"{error.detail}.")
    headers = dict(error.headers or {})
    if kind is ErrorKind.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_allowed(request))
    return _answer(request, OffkeyError(kind, detail), headers)


def _allowed(request: Request) -> list[str]:
    """The methods that an address takes. Starlette names those of the first route alone that has the address."""
    routes = request.app.router.routes
    return [
        method
        for method in _METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]


async def _left(request: Request, __: Exception) -> Response:
    # Nobody reads this answer; it keeps a client that left before its answer out of the error log.
    request.app.state.context.metrics.abandoned()
    return Response(status_code=499)
