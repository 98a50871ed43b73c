"""How a route says which scope it needs, and how that is held to before anything of the body is read."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Response, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from service.domain.access import Caller, Scope
from service.routes.common import problems
from service.usecases.access import Gate
from service.workers import Workers

_bearer = HTTPBearer(
    scheme_name="key",
    bearerFormat="offkey_<key id>_<secret>",
    description="Needed once a key exists. What a scope is good for: docs/security.md.",
    auto_error=False,  # FastAPI's own error is no problem+json
)


class Needs:
    """The scope of a route, as a dependency of it: this is how it comes into the OpenAPI document."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(
        self, request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
    ) -> None:
        """Look again; a route that `GuardedRoute` did not guard has no caller, and fails."""
        caller: Caller = request.state.caller
        caller.check_scope(self.scope)


SCORE = Depends(Needs(Scope.SCORE))
ENROLL = Depends(Needs(Scope.ENROLL))
ADMIN = Depends(Needs(Scope.ADMIN))


class GuardedRoute(APIRoute):
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
        named = [one.dependency.scope for one in self.dependencies if isinstance(one.dependency, Needs)]
        if len(named) != 1:
            raise TypeError(f"{self.path} names {len(named)} scopes, not one")
        return named[0]

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler behind the gate."""
        handle = super().get_route_handler()
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


async def _admitted(request: Request) -> Caller:
    gate: Gate = request.app.state.gate
    gatekeepers: Workers = request.app.state.gatekeepers
    sent, request_id = _sent_key(request), request.state.request_id
    caller = gate.recognize(sent, request_id)
    return await gatekeepers.run(gate.admit, sent, request_id) if caller is None else caller


def _sent_key(request: Request) -> str | None:
    scheme, _, sent = request.headers.get("Authorization", "").partition(" ")
    return sent.strip() if scheme.lower() == "bearer" else None


def _named_machines(request: Request) -> list[str]:
    named = request.path_params.get("machine_id")
    return [*([named] if named is not None else []), *request.query_params.getlist("machine_id")]
