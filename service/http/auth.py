"""Authenticate the caller of a route and check its scope before anything of the body is read."""

from collections.abc import Callable, Coroutine
from inspect import signature
from typing import Any, get_args

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers
from starlette.types import Receive, Send
from starlette.types import Scope as ASGIScope

from offkey.vocabulary import Scope
from service.domain.access import Caller
from service.http.body_limit import BodyLimit
from service.http.dependencies import call_of, problems
from service.settings import Settings
from service.usecases.service import Service

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

# Written into the OpenAPI document by hand: as a dependency, FastAPI would read the header of every request again.
SECURITY_SCHEMES = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "offkey_<key id>_<secret>",
        "description": "Needed once a key exists. docs/how-to/keys.md lists what each scope allows.",
    }
}


class RequiresScope:
    """The scope that a route requires, as a dependency."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, request: Request) -> None:
        """Check again. A route that is no `AuthenticatedRoute` has no caller, and fails."""
        caller: Caller = request.state.caller
        caller.check_scope(self.scope)


SCORE = Depends(RequiresScope(Scope.SCORE))
ENROLL = Depends(RequiresScope(Scope.ENROLL))
ADMIN = Depends(RequiresScope(Scope.ADMIN))


class AuthenticatedRoute(APIRoute):
    """Route that admits only keys with the scope that it names: `dependencies=[SCORE]`.

    The key is checked before FastAPI reads the body; dependencies run after that. A machine id in the path or the query
    is checked here. The store checks every machine id again, wherever it came from.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        options["responses"] = {**problems(401, 403, 429, 503), **(options.get("responses") or {})}
        options["openapi_extra"] = {"security": [{"key": []}], **(options.get("openapi_extra") or {})}
        super().__init__(path, endpoint, **options)
        self._limited = BodyLimit(super().handle, self.max_body_bytes)

    # FastAPI builds `app` again for a route of an included router, so a limit around `app` would be lost.
    async def handle(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Serve a request, and refuse a body over the limit of the route."""
        await self._limited(scope, receive, send)

    def max_body_bytes(self, settings: Settings, _: Headers) -> int:
        """Return the largest body that the route accepts, in bytes."""
        return settings.limits.max_body_bytes

    @property
    def scope(self) -> Scope:
        """Required scope. Raises TypeError if the route names none, or several."""
        named = [one.dependency.scope for one in self.dependencies if isinstance(one.dependency, RequiresScope)]
        if len(named) != 1:
            raise TypeError(f"{self.path} names {len(named)} scopes, not one")
        return named[0]

    def endpoint_handler(self) -> Handler:
        """Return FastAPI's handler of the endpoint."""
        return super().get_route_handler()

    def get_route_handler(self) -> Handler:
        """Return FastAPI's handler with authentication in front of it."""
        handle = self.endpoint_handler()
        scope, whole_service = self.scope, "{machine_id}" not in self.path

        async def authenticated(request: Request) -> Response:
            service: Service = request.app.state.service
            sent = sent_key(request.headers)
            caller = await service.authenticator.authenticate(sent, request.state.request_id)
            caller.check_scope(scope)
            if scope is Scope.ADMIN and whole_service:
                caller.check_whole_service()
            for machine_id in _named_machines(request):
                caller.check_machine(machine_id)
            request.state.caller = caller
            return await handle(request)

        return authenticated


class DirectRoute(AuthenticatedRoute):
    """Route whose endpoint takes `(request, call, query: Annotated[Model, Query()])` and returns a response.

    FastAPI documents it like any other route, but does not solve its dependencies for each request. That took 0.14 ms
    of CPU on the event loop, 1 % of a scored clip (decision 0024).
    """

    def endpoint_handler(self) -> Handler:
        """Return a handler that validates the query and calls the endpoint."""
        endpoint = self.endpoint
        model: type[BaseModel] = get_args(signature(endpoint).parameters["query"].annotation)[0]

        async def direct(request: Request) -> Response:
            try:
                query = model.model_validate(dict(request.query_params))
            except ValidationError as error:
                problems = [{**one, "loc": ("query", *one["loc"])} for one in error.errors()]
                raise RequestValidationError(problems) from error
            response: Response = await endpoint(request, await call_of(request), query)
            return response

        return direct


class ArchiveRoute(AuthenticatedRoute):
    """Route that also accepts a zip archive, which is written to disk and may be larger than other bodies."""

    def max_body_bytes(self, settings: Settings, headers: Headers) -> int:
        """Return the largest body that the route accepts, in bytes."""
        return settings.limits.max_zip_bytes if is_zip(headers) else super().max_body_bytes(settings, headers)


def is_zip(headers: Headers) -> bool:
    """Whether the headers of a request state a zip archive."""
    return headers.get("content-type", "").partition(";")[0].strip().lower() == "application/zip"


def sent_key(headers: Headers) -> str | None:
    """Return the text of the key in the headers of a request. None if there is none."""
    scheme, _, sent = headers.get("Authorization", "").partition(" ")
    return sent.strip() if scheme.lower() == "bearer" else None


def _named_machines(request: Request) -> list[str]:
    named = request.path_params.get("machine_id")
    return [*([named] if named is not None else []), *request.query_params.getlist("machine_id")]
