"""Decide whether a request is sent again, and after how many seconds."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx2

_REFUSED_FOR_NOW = (429, 503)
_LONGEST_WAIT = 60.0  # seconds; a service that needs longer is reported instead
_SHORTEST_WAIT = 0.1  # seconds
_CONNECTION_WAIT = 0.2  # seconds before the first new connection
_MOST_CONNECTIONS = 3  # new connections for one request


class Retry:
    """The attempts of one request.

    A 429 or 503 with `Retry-After` is repeated after the seconds, or at the date, that it gives. The wait doubles
    with each attempt. A broken connection is repeated for idempotent requests only, because the service may have
    carried the request out before the connection broke.

    Args:
        retries: limit of attempts after the first.
        is_idempotent: whether the request can be sent twice.
    """

    def __init__(self, retries: int, *, is_idempotent: bool) -> None:
        self._left = retries
        self._connections_left = _MOST_CONNECTIONS if is_idempotent else 0
        self._factor = 1

    def after_response(self, response: httpx2.Response) -> float | None:
        """Return the wait in seconds. None if the response is final."""
        seconds = _retry_after(response) if response.status_code in _REFUSED_FOR_NOW else None
        if seconds is None or seconds > _LONGEST_WAIT:
            return None
        return self._wait(seconds)

    def after_error(self, error: Exception) -> float | None:
        """Return the wait in seconds. None if the error is final. Timeouts are: the next attempt would time out too."""
        if not isinstance(error, httpx2.NetworkError | httpx2.RemoteProtocolError) or not self._connections_left:
            return None
        self._connections_left -= 1
        return self._wait(_CONNECTION_WAIT)

    def _wait(self, seconds: float) -> float | None:
        if not self._left:
            return None
        wait = min(max(seconds, _SHORTEST_WAIT) * self._factor, _LONGEST_WAIT)
        self._left -= 1
        self._factor *= 2
        return wait


def _retry_after(response: httpx2.Response) -> float | None:
    """Return the seconds until the time in `Retry-After`. None if there is no such header, or it cannot be read."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    at = _date(text)
    if at is None:
        return None
    # By the clock of the server, which may differ from the one here.
    now = _date(response.headers.get("Date", "")) or datetime.now(UTC)
    return max((at - now).total_seconds(), 0.0)


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found
