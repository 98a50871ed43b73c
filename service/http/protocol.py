"""How requests are read from a connection: uvicorn's fast parser, with an end to what it would take without one.

httptools bounds neither the head of a request nor what comes around its body (trailers, chunk extensions), nor does
uvicorn bound the time in which a head arrives, or in which a client reads nothing of its answer. Bytes are bounded here
by what is counted, whatever it turns out to be, and times by timers.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

# Bytes beside each byte of a body: a chunk of one byte comes with six.
_FRAMING = 8


class BoundedProtocol(HttpToolsProtocol):
    """One connection. Subclasses say what its limits are."""

    max_head_bytes: int
    max_head_seconds: float
    max_stall_seconds: float

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head_bytes = 0  # parsed, of the head that is being read
        self._beside_body = 0  # received since the last byte of a body or the end of a head
        self._in_head = True
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None

    # Uvicorn narrows the transport of asyncio's interface as well: it only listens to streams.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_timer()
        self._moves_on()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall_timer = self.loop.call_later(self.max_stall_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        self._moves_on()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._await_head()
        self._beside_body += len(data)
        super().data_received(data)
        if self._beside_body > self.max_head_bytes and not self.transport.is_closing():
            self.send_400_response("The head of the request, or what comes around its body, is too large.")

    def on_url(self, url: bytes) -> None:
        self._head_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4  # ": " and the end of the line
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._head_bytes > self.max_head_bytes:
            # It came in one piece. The parser makes a 400 of it.
            raise ValueError("the head is too large")
        self._in_head, self._head_bytes, self._beside_body = False, 0, 0
        self._forget_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._beside_body = max(0, self._beside_body - _FRAMING * len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._in_head:  # answered before its body had come: the rest and the next head have one deadline
            self._await_head()

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.max_head_seconds, self._too_slow)

    def _forget_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _moves_on(self) -> None:
        """The client reads, or is gone."""
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
    """A protocol for `uvicorn.Config(http=...)`.

    Args:
        max_head_bytes: of the first line and the headers; a little more where they come in one piece with what follows.
        max_head_seconds: from the opening of a connection, or the first byte of another request, to the end of a head.
        max_stall_seconds: in which a client reads nothing of an answer that is too large for the buffers between.
    """
    limits = {
        "max_head_bytes": max_head_bytes,
        "max_head_seconds": max_head_seconds,
        "max_stall_seconds": max_stall_seconds,
    }
    return type("LimitedProtocol", (BoundedProtocol,), limits)
