"""What a connection may cost before and after its request: bounds that uvicorn's protocol lacks.

Threat: a head, or what stands between the pieces of a body, that never ends, in bytes or in time; requests
sent without waiting for answers, each of which would be kept; a body that goes on after its answer; an answer
that is not read. nginx bounds the same: large_client_header_buffers, client_header_timeout, lingering_time,
send_timeout.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


if TYPE_CHECKING:
    import asyncio

TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
ABORT_S = 5.0  # from closing: what is not read by then is dropped


class Phase(Enum):
    """What of a message has come."""

    NOTHING = auto()
    HEAD = auto()  # some of it
    BODY = auto()  # the head, and perhaps some of the body


class BoundedProtocol(HttpToolsProtocol):
    """One request at a time, whose head is short and comes soon, and whose answer is read."""

    max_head_bytes: ClassVar[int] = 64 * 1024  # also of trailers, and of what stands beside a body's pieces
    head_timeout_s: ClassVar[float] = 20.0
    # Whoever was answered before his body ended may send the rest, or a reset would cost him the answer.
    lingering_s: ClassVar[float] = 10.0
    send_timeout_s: ClassVar[float] = 60.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._phase = Phase.NOTHING
        self._loose_bytes = 0  # of a head, or since the last piece of a body
        self._has_body = False  # some of it has come
        self._closes = False  # after this answer, as the caller asked
        self._waits_for: Phase | None = None  # what `_timer` waits for
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a head soon."""
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        for timer in (self._timer, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed *data* to the parser, and bound what it keeps without knowing what it is for."""
        began_in_body = self._phase is Phase.BODY
        self._loose_bytes += len(data)
        super().data_received(data)
        if self._phase is Phase.HEAD and began_in_body:
            self._loose_bytes = 0
        if self._phase is not Phase.NOTHING and self._loose_bytes > self.max_head_bytes:
            self._refuse_head()
        self._watch()

    def on_message_begin(self) -> None:
        """Expect the rest of the head."""
        super().on_message_begin()
        self._phase = Phase.HEAD

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a field of the head; those after a body tell nothing that is wanted here."""
        if self._phase is Phase.HEAD:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request; one that comes before the last is answered ends the connection."""
        self._phase, self._loose_bytes, self._has_body = Phase.BODY, 0, False
        if self.transport.is_closing():
            return
        if self._is_answering():
            self._give_up()
        elif self._head_bytes() > self.max_head_bytes:
            self._refuse_head()
        else:
            super().on_headers_complete()
            # Closing is ours, for uvicorn does not wait until the body has ended.
            self._closes, self.cycle.keep_alive = not self.cycle.keep_alive, True

    def on_body(self, body: bytes) -> None:
        """Keep *body* for its request, if there is one."""
        self._has_body, self._loose_bytes = True, 0
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Expect another message, whenever it comes."""
        self._phase, self._loose_bytes = Phase.NOTHING, 0
        if self.transport.is_closing():
            return
        super().on_message_complete()
        if self._closes and not self._is_answering():
            self._give_up()

    def on_response_complete(self) -> None:
        """Let a body that still comes end soon; one that waits to be asked for never will."""
        super().on_response_complete()
        will_not_come = self._phase is Phase.BODY and self.expect_100_continue and not self._has_body
        if will_not_come or (self._closes and self._phase is not Phase.BODY):
            self._give_up()
        self._watch()

    def pause_writing(self) -> None:
        """Wait for the caller to read."""
        super().pause_writing()
        self._unread = self.loop.call_later(self.send_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the caller has read."""
        if self._unread is not None:
            self._unread.cancel()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has rested for long enough."""
        self._give_up()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _head_bytes(self) -> int:
        """Return the size of the head that has come, as it is usually written."""
        line = len(self.parser.get_method()) + len(self.url) + len("  HTTP/1.1\r\n")
        return (
            line + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers) + len("\r\n")
        )

    def _refuse_head(self) -> None:
        if not self._is_answering() and not self.transport.is_closing():
            self.transport.write(TOO_LONG)
        self._give_up()

    def _watch(self) -> None:
        """Set the timer for what has to come next; while a request is answered, nothing has to."""
        waits_for = None if self._is_answering() or self.transport.is_closing() else self._phase
        if waits_for is self._waits_for:
            return
        self._waits_for = waits_for
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if waits_for is not None:
            self._timer = self.loop.call_later(self._patience_s(waits_for), self._give_up)

    def _patience_s(self, waits_for: Phase) -> float:
        if waits_for is Phase.BODY:
            return self.lingering_s
        return (
            self.head_timeout_s if waits_for is Phase.HEAD or self.cycle is None else self.timeout_keep_alive
        )

    def _give_up(self) -> None:
        """Close the connection, whether or not the caller reads what is left to him."""
        self.transport.close()
        if self._unread is not None:
            self._unread.cancel()
        self._unread = self.loop.call_later(ABORT_S, self.transport.abort)
