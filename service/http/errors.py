"""Answer errors as problem+json, whichever layer raised them."""

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from offkey.errors import ErrorKind, OffkeyError
from service.http.problems import problem_response
from service.usecases.admission import CallerLeftError

_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
_ROUTING_ERRORS = {404: ErrorKind.UNKNOWN_ROUTE, 405: ErrorKind.METHOD_NOT_ALLOWED}


def add_error_handlers(app: FastAPI) -> None:
    """Register a handler for each kind of exception that reaches the application."""
    app.add_exception_handler(OffkeyError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _not_routed)
    app.add_exception_handler(ClientDisconnect, _left)
    app.add_exception_handler(CallerLeftError, _left)


def _answer(request: Request, error: OffkeyError, headers: dict[str, str] | None = None) -> Response:
    request.app.state.service.metrics.refused(error.kind.value)
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
    if isinstance(error.__cause__, OffkeyError):  # FastAPI wraps errors that are raised while it reads a JSON body
        return _answer(request, error.__cause__)
    kind = _ROUTING_ERRORS.get(error.status_code, ErrorKind.MALFORMED_REQUEST)
    detail = {
        ErrorKind.UNKNOWN_ROUTE: f"There is nothing at {request.url.path}. /docs lists all addresses.",
        ErrorKind.METHOD_NOT_ALLOWED: f"{request.url.path} does not accept {request.method}. /docs lists its methods.",
    }.get(kind, f"{error.detail}.")
    headers = dict(error.headers or {})
    if kind is ErrorKind.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_allowed(request))
    return _answer(request, OffkeyError(kind, detail), headers)


def _allowed(request: Request) -> list[str]:
    """Return all methods of an address. Starlette lists only those of the first route with that address."""
    routes = request.app.router.routes
    return [
        method
        for method in _METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]


async def _left(request: Request, __: Exception) -> Response:
    # No client reads this answer. It keeps clients that left out of the error log.
    request.app.state.service.metrics.abandoned()
    return Response(status_code=499)
