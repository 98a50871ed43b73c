"""How a route says which scope it needs, and how that is held to before anything of the body is read."""

from collections.abc import Callable, Coroutine
from inspect import signature
from typing import Annotated, Any, get_args

from fastapi import Depends, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ValidationError

from offkey.vocabulary import Scope
from service.domain.access import Caller
from service.http.dependencies import problems
from service.usecases.admission import WorkPool
from service.usecases.authenticate import Authenticator

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_bearer = HTTPBearer(
    scheme_name="key",
    bearerFormat="offkey_<key id>_<secret>",
    description="Needed once a key exists. What a scope is good for: docs/security.md.",
    auto_error=False,  # FastAPI's own error is no problem+json
)


class RequiresScope:
    """The scope of a route, as a dependency of it: this is how it comes into the OpenAPI document."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(
        self, request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
    ) -> None:
        """Look again; a route that `GuardedRoute` did not guard has no caller, and fails."""
        caller: Caller = request.state.caller
        caller.check_scope(self.scope)


SCORE = Depends(RequiresScope(Scope.SCORE))
ENROLL = Depends(RequiresScope(Scope.ENROLL))
ADMIN = Depends(RequiresScope(Scope.ADMIN))


class AuthenticatedRoute(APIRoute):
    """A route that lets nobody in without a key of the scope it names: `dependencies=[SCORE]`.

    FastAPI reads JSON bodies before it asks dependencies, so these come too late to turn somebody away. The machine
    of a request is looked at where it is in the path or the query; the store looks again, wherever it came from.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        options["responses"] = {**problems(401, 403, 429, 503), **(options.get("responses") or {})}
        super().__init__(path, endpoint, **options)

    @property
    def scope(self) -> Scope:
        """The scope that is needed. Raises TypeError if the route names none, or several."""
        named = [one.dependency.scope for one in self.dependencies if isinstance(one.dependency, RequiresScope)]
        if len(named) != 1:
            raise TypeError(f"{self.path} names {len(named)} scopes, not one")
        return named[0]

    def handler(self) -> Handler:
        """What is behind the gate: FastAPI's handler."""
        return super().get_route_handler()

    def get_route_handler(self) -> Handler:
        """The handler behind the gate."""
        handle = self.handler()
        scope, whole_service = self.scope, "{machine_id}" not in self.path

        async def guarded(request: Request) -> Response:
            caller = await _admitted(request)
            caller.check_scope(scope)
            if scope is Scope.ADMIN and whole_service:
                caller.check_whole_service()
            for machine_id in _named_machines(request):
                caller.check_machine(machine_id)
            request.state.caller = caller
            return await handle(request)

        return guarded


class DirectRoute(AuthenticatedRoute):
    """A route whose endpoint takes `(request, query: Annotated[Model, Query()])` and returns a response.

    FastAPI documents it as any other, but its query is validated here: in a profile of the event loop,
    solving what an endpoint depends on was the largest part after the reading and sending of bytes.
    """

    def handler(self) -> Handler:
        """Validate the query and call the endpoint."""
        endpoint = self.endpoint
        model: type[BaseModel] = get_args(signature(endpoint).parameters["query"].annotation)[0]

        async def direct(request: Request) -> Response:
            try:
                query = model.model_validate(dict(request.query_params))
            except ValidationError as error:
                found = [{**one, "loc": ("query", *one["loc"])} for one in error.errors()]
                raise RequestValidationError(found) from error
            response: Response = await endpoint(request, query)
            return response

        return direct


async def _admitted(request: Request) -> Caller:
    authenticator: Authenticator = request.app.state.authenticator
    auth_pool: WorkPool = request.app.state.auth_pool
    sent, request_id = _sent_key(request), request.state.request_id
    caller = authenticator.recognize(sent, request_id)
    return await auth_pool.run(authenticator.admit, sent, request_id) if caller is None else caller


def _sent_key(request: Request) -> str | None:
    scheme, _, sent = request.headers.get("Authorization", "").partition(" ")
    return sent.strip() if scheme.lower() == "bearer" else None


def _named_machines(request: Request) -> list[str]:
    named = request.path_params.get("machine_id")
    return [*([named] if named is not None else []), *request.query_params.getlist("machine_id")]
