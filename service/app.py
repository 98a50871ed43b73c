"""Build the HTTP application: the composition root."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline

from offkey.schemas import Problem
from offkey.vocabulary import JobKind
from service import __version__
from service.http.auth import SECURITY_SCHEMES
from service.http.errors import add_error_handlers
from service.http.middleware import Observe
from service.http.routes import clips, jobs, keys, machines, models, operations, snapshots
from service.jobs.archives import EnrollArchive, sweep_archives
from service.jobs.handler import JobHandler
from service.jobs.reembed import Reembed
from service.jobs.runner import JobRunner
from service.jobs.snapshots import MakeSnapshot
from service.usecases.drift import watch_drift
from service.usecases.service import Service

_CLOSE_SECONDS = 0.5
_JOB_HANDLERS: Mapping[JobKind, JobHandler] = {
    JobKind.ENROLL: EnrollArchive(),
    JobKind.SNAPSHOT: MakeSnapshot(),
    JobKind.REEMBED: Reembed(),
}
_ROUTERS = (
    clips.router,
    machines.router,
    jobs.router,
    snapshots.router,
    models.router,
    keys.router,
    operations.router,
    operations.open_router,
)


def create_app(service: Service) -> FastAPI:
    """Return the HTTP application of a service. It closes the service when it shuts down."""
    runner = JobRunner(service, _JOB_HANDLERS)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sweep_archives(service)
        service.score_buffer.start(partial(watch_drift, service))
        runner.start()
        try:
            yield
        finally:
            runner.stop()
            runner.join(_CLOSE_SECONDS)
            for pool in service.admission:
                pool.stop()
                await pool.close(_CLOSE_SECONDS)
            service.close()

    # Serves /docs and /redoc from the package, not from a CDN: factories have no internet.
    app = FastAPIOffline(
        title="Offkey",
        version=__version__,
        description="Anomalous sound detection: enroll clips of a healthy machine, then score every new clip.",
        lifespan=lifespan,
    )
    # FastAPI documents this way of extending the document.
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    app.state.service = service
    app.state.runner = runner
    for router in _ROUTERS:
        app.include_router(router)
    app.add_middleware(Observe, metrics=service.metrics)
    add_error_handlers(app)
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        # FastAPI cannot name a model for problem+json.
        schema["components"]["schemas"]["Problem"] = Problem.model_json_schema()
        schema["components"]["securitySchemes"] = SECURITY_SCHEMES
        app.openapi_schema = schema
    return app.openapi_schema
