"""What a connection may cost before and after its request: bounds that uvicorn's protocol lacks.

Threat: a head that never ends, in bytes or in time; requests sent without waiting for answers, each of which
would be kept; a body that goes on after its answer. nginx bounds the same: large_client_header_buffers,
client_header_timeout, lingering_time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


if TYPE_CHECKING:
    import asyncio

TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class BoundedProtocol(HttpToolsProtocol):
    """One request at a time, whose head is short and comes soon."""

    max_head_bytes: ClassVar[int] = 64 * 1024
    head_timeout_s: ClassVar[float] = 20.0
    # Whoever was answered before his body ended may send the rest, or a reset would cost him the answer.
    lingering_s: ClassVar[float] = 10.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes: int | None = 0  # of a head that is coming; None while a body does
        self._has_body = False  # some of it has come
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a head soon."""
        super().connection_made(transport)
        self._close_after(self.head_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed *data* to the parser, unless it belongs to a head that is too long."""
        if self._head_bytes is not None:
            self._head_bytes += len(data)
            if self._head_bytes > self.max_head_bytes and not self._ends_soon(data):
                self.transport.write(TOO_LONG)
                self.transport.close()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Expect the rest of the head soon."""
        super().on_message_begin()
        if self._timer is None:
            self._close_after(self.head_timeout_s)

    def on_headers_complete(self) -> None:
        """Start the request; one that comes before the last is answered ends the connection."""
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.close()
            return
        self._stop_timer()
        self._head_bytes, self._has_body = None, False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Keep *body* for its request, if there is one."""
        self._has_body = True
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Expect another head, whenever it comes."""
        self._stop_timer()
        self._head_bytes = 0
        if not self.transport.is_closing():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Let a body that still comes end soon; one that waits to be asked for never will."""
        super().on_response_complete()
        if self._head_bytes is None:
            self._close_after(0 if self.expect_100_continue and not self._has_body else self.lingering_s)

    def _ends_soon(self, data: bytes) -> bool:
        """Return whether the head ends within its bound, and a body follows in the same *data*."""
        before = (self._head_bytes or 0) - len(data)
        end = data.find(b"\r\n\r\n")
        return end >= 0 and before + end + 4 <= self.max_head_bytes

    def _close_after(self, delay_s: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(delay_s, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
