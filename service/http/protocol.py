"""Parse requests with uvicorn's fast parser, with limits that it lacks.

httptools limits neither the head of a request nor trailers and chunk extensions around its body. Uvicorn limits neither
the time for a head to arrive nor the time that an answer stays unread. Here all received bytes are counted, whatever
they belong to, and timers limit the times.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

# Accepted bytes of framing for each byte of a body. A chunk of one byte has six.
_FRAMING = 8


class BoundedProtocol(HttpToolsProtocol):
    """One connection. Subclasses define its limits."""

    max_head_bytes: int
    max_head_seconds: float
    max_stall_seconds: float

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head_bytes = 0  # parsed bytes of the current head
        self._framing_bytes = 0  # bytes received since the last byte of a body or the end of a head
        self._in_head = True
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None

    # Uvicorn narrows the type as well: it only accepts streams.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_head_timer()
        self._cancel_stall_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall_timer = self.loop.call_later(self.max_stall_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        self._cancel_stall_timer()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._start_head_timer()
        self._framing_bytes += len(data)
        super().data_received(data)
        if self._framing_bytes > self.max_head_bytes and not self.transport.is_closing():
            self.send_400_response("The head of the request, or the framing of its body, is too large.")

    def on_url(self, url: bytes) -> None:
        self._head_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4  # ": " and the end of the line
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._head_bytes > self.max_head_bytes:
            # It arrived in one piece. The parser answers 400.
            raise ValueError("the head is too large")
        self._in_head, self._head_bytes, self._framing_bytes = False, 0, 0
        self._cancel_head_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._framing_bytes = max(0, self._framing_bytes - _FRAMING * len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._in_head:  # answered before its body arrived: the rest and the next head share a deadline
            self._start_head_timer()

    def _start_head_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.max_head_seconds, self._too_slow)

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _cancel_stall_timer(self) -> None:
        """Cancel the timer, because the client reads or has left."""
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            if self._in_head:
                self.transport.write(STATUS_LINE[408] + b"content-length: 0\r\nconnection: close\r\n\r\n")
            self.transport.close()


def bounded_protocol(max_head_bytes: int, max_head_seconds: float, max_stall_seconds: float) -> type[BoundedProtocol]:
    """Return a protocol class for `uvicorn.Config(http=...)`.

    Args:
        max_head_bytes: limit of the first line and the headers, in bytes. A head that arrives together with its body
            may be a little larger.
        max_head_seconds: time from the opening of a connection, or from the first byte of a later request, to the end
            of the head, in seconds.
        max_stall_seconds: time that a client may read nothing of an answer that exceeds the socket buffers, in
            seconds.
    """
    limits = {
        "max_head_bytes": max_head_bytes,
        "max_head_seconds": max_head_seconds,
        "max_stall_seconds": max_stall_seconds,
    }
    return type("LimitedProtocol", (BoundedProtocol,), limits)
