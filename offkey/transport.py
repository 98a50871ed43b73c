"""Turn the description of a call into an HTTP request, and an HTTP response into the answer or an error."""

import os
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from pydantic import ValidationError

from offkey.errors import ErrorKind, OffkeyError
from offkey.keys import Token
from offkey.problems import ProblemError, UnreachableError
from offkey.requests.request import Request
from offkey.schemas.operations import Problem

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT = 120.0  # seconds: a request may hold many minutes of audio
DEFAULT_RETRIES = 5
PROBE_TIMEOUT = 5.0  # seconds
BLOCK_BYTES = 1 << 20  # of a download in memory

Answer = TypeVar("Answer")


def authorization(key: str | None) -> dict[str, str]:
    """Return the header for an API key.

    Args:
        key: API key; None for the environment variable OFFKEY_KEY, if it is set.

    Raises:
        OffkeyError: the key does not have the form of a key.
    """
    text = (os.environ.get("OFFKEY_KEY", "") if key is None else key).strip()
    if not text:
        return {}
    if Token.parse(text) is None:  # not shown: it may be a secret all the same
        raise OffkeyError(
            ErrorKind.UNAUTHENTICATED,
            "The key (OFFKEY_KEY) is not of the form offkey_<key id>_<secret>. Copy all of it from the output of "
            "`offkey keys create`.",
        )
    return {"Authorization": f"Bearer {text}"}


def options(request: Request[Any], *, is_async: bool) -> dict[str, Any]:
    """Return the arguments of `build_request` of an HTTP client. A body is read from its beginning each time."""
    built: dict[str, Any] = {
        "method": request.method,
        "url": request.path,
        "params": dict(request.params),
        "headers": dict(request.headers),
    }
    if request.json is not None:
        built["json"] = request.json.model_dump(mode="json")
    if request.clips:
        built["files"] = [("clips", clip) for clip in request.clips]
    if request.archive is not None:
        built["headers"]["Content-Length"] = str(request.archive.size())
        built["content"] = request.archive.blocks_async() if is_async else request.archive.blocks()
    return built


def unreachable(url: str, error: Exception) -> UnreachableError:
    """Return the error for a request without a response."""
    reason = str(error) or type(error).__name__
    return UnreachableError(f"No answer from {url} ({reason}). Is the service running? `offkey serve` starts it.")


def check(url: str, response: httpx2.Response) -> None:
    """Raise the error that a response stands for, if it is one. Its body must have been read."""
    if response.is_success:
        return
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError as error:
        path = response.request.url.path
        raise UnreachableError(f"{url}{path} answered {response.status_code}, but not as Offkey does.") from error
    raise ProblemError(problem)


def read(url: str, request: Request[Answer], response: httpx2.Response) -> Answer:
    """Return the answer in a successful response."""
    try:
        return request.read(response.content)
    except ValueError as error:  # ValidationError is one
        raise UnreachableError(f"{url} answers, but not as Offkey does: {error}") from error


def open_private(path: str, flags: int) -> int:
    """Open a file that only its owner can read, and return its descriptor."""
    return os.open(path, flags, 0o600)


def download_target(path: str | os.PathLike[str], name: str) -> Path:
    """Return the file to write a download to: `path`, or `name` in it if it is a folder."""
    target = Path(path)
    return target / name if target.is_dir() else target
