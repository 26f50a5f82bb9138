"""One HTTP answer: how long it may take, how much may come, and whether it left its connection clean.

Threat: a server that holds a thread by sending a byte now and then, that sends heads, chunk sizes or trailers
without end, or that appends to its answer what would be taken for the next one (response splitting). Every
read is given what is left of the deadline, and every byte that arrives is counted, whatever it belongs to:
`http.client` knows a timeout per read and no limit on interim answers, trailers or the size of "-1".
"""

from __future__ import annotations

import io
from http.client import HTTPException, HTTPResponse
from typing import TYPE_CHECKING, Any, Final


if TYPE_CHECKING:
    import socket

    from typing_extensions import Buffer

    from embedding.intake.deadline import Deadline
    from embedding.intake.limits import FetchLimits

_HTTP_1_1: Final = 11
_INTERIM: Final = range(102, 200)  # `http.client` passes over 100; after 101 the server speaks no HTTP
_FINAL: Final = 200
_WITHOUT_BODY: Final = frozenset({204, 304})


class TooMuch(HTTPException):
    """More bytes than any answer that is allowed can have."""


class Answer(HTTPResponse):
    """An answer of `max_overhead_bytes` up to the end of its head, and in all `max_bytes` more."""

    def __init__(
        self, sock: socket.socket, *args: Any, deadline: Deadline, limits: FetchLimits, **kwargs: Any
    ) -> None:
        super().__init__(sock, *args, **kwargs)
        self._limits = limits
        self._reader = _BoundedReader(self.fp.detach(), sock, deadline, limits)
        self._input = _Input(self._reader)
        self._is_complete = False
        self.fp = self._input

    @property
    def has_begun(self) -> bool:
        """Whether a byte of it has arrived."""
        return self._reader.has_read

    def begin(self) -> None:
        """Read the head, passing over interim answers."""
        super().begin()
        while self.status in _INTERIM:
            self.headers = self.msg = None  # type: ignore[assignment]  # or it would not begin again
            super().begin()
        self._reader.left_bytes += self._limits.max_bytes

    def read(self, amt: int | None = None) -> bytes:
        """Return the next *amt* bytes of the body, none at its end."""
        data = super().read(amt)
        self._is_complete = self.isclosed() and not self.length
        return data

    def skip_body(self) -> None:
        """Read the body if all of it has arrived with the head; nothing is waited for."""
        if self.length is not None and self.length == self._input.unread_bytes():
            self.read(self.length)

    def leaves_clean(self) -> bool:
        """Return whether all of it was read, to an end that is beyond doubt, and nothing came after it.

        One length in digits, or chunks, mark an end; both, or several, are how answers are smuggled.
        """
        if not self._is_complete or self._input.unread_at_close or self.version != _HTTP_1_1:
            return False
        lengths = self.headers.get_all("Content-Length", [])
        codings = self.headers.get_all("Transfer-Encoding", [])
        is_framed = (len(lengths) == 1 and lengths[0].isdecimal()) if not self.chunked else not lengths
        asks_to_close = any("close" in value.lower() for value in self.headers.get_all("Connection", []))
        has_body = self.status >= _FINAL and self.status not in _WITHOUT_BODY
        return has_body and is_framed and len(codings) == int(self.chunked) and not asks_to_close


class _Input(io.BufferedReader):
    """Buffers an answer, and knows how much of the buffer nobody asked for."""

    def __init__(self, reader: _BoundedReader) -> None:
        super().__init__(reader)
        self._reader = reader
        self.unread_at_close = 0

    def unread_bytes(self) -> int:
        self._reader.is_paused = True
        try:
            return len(self.peek())
        finally:
            self._reader.is_paused = False

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            raise HTTPException("a chunk of negative size")
        return super().read(size)

    def close(self) -> None:
        if not self.closed:
            self.unread_at_close = self.unread_bytes()
        super().close()


class _BoundedReader(io.RawIOBase):
    def __init__(
        self, raw: io.RawIOBase, sock: socket.socket, deadline: Deadline, limits: FetchLimits
    ) -> None:
        self._raw = raw
        self._sock = sock
        self._deadline = deadline
        self._read_timeout_s = limits.read_timeout_s
        self.left_bytes = limits.max_overhead_bytes
        self.has_read = False
        self.is_paused = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int | None:
        if self.is_paused:
            return None
        self._sock.settimeout(self._deadline.clip_s(self._read_timeout_s))
        # With nothing left, one byte more tells an end from an excess.
        count = self._raw.readinto(memoryview(buffer)[: max(self.left_bytes, 1)])
        if count:
            self.has_read = True
            if count > self.left_bytes:
                raise TooMuch
            self.left_bytes -= count
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()
