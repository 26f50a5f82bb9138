"""How much of strangers' work is held at once: requests that are running, and the bytes of their bodies.

A body takes room as it arrives, so a caller who announces much and sends nothing holds nothing; a place is
taken when the body is whole. Who finds no room is told to come again; nobody waits in a line that only grows.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from embedding.errors import Overloaded, RequestTooLarge


if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_HELD_BYTES: Final = 256 << 20  # of all bodies; what is read out of them may take as much four times over


class Gate:
    """Places and bytes; used by the event loop alone."""

    def __init__(
        self, *, max_running: int, max_request_bytes: int, max_held_bytes: int = MAX_HELD_BYTES
    ) -> None:
        self.running = 0
        self.bodies = 0  # that are held, of requests that arrive or run
        self.held_bytes = 0
        self.max_running = max_running
        self._max_request_bytes = max_request_bytes
        self.max_held_bytes = max(max_held_bytes, 2 * max_request_bytes)

    @contextmanager
    def body(self, *, is_trusted: bool = True) -> Iterator[Body]:
        """Hold one body, and forget its bytes at the end.

        Of a caller who *is_trusted* it may take the last half of the room; strangers cannot fill that.
        """
        body = Body(self, self.max_held_bytes if is_trusted else self.max_held_bytes // 2)
        self.bodies += 1
        try:
            yield body
        finally:
            self.bodies -= 1
            self.held_bytes -= len(body.data)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take one place. Raises Overloaded if all are taken."""
        if self.running >= self.max_running:
            raise Overloaded(f"{self.max_running} requests are running already; try again later")
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1

    def check_size(self, size_bytes: int) -> None:
        """Raise RequestTooLarge if a body may not have *size_bytes*, announced or come."""
        if size_bytes > self._max_request_bytes:
            raise RequestTooLarge(f"the body has {size_bytes} bytes; the limit is {self._max_request_bytes}")

    def take(self, size_bytes: int, max_held_bytes: int) -> None:
        """Hold *size_bytes* more. Raises Overloaded if more than *max_held_bytes* would be held."""
        if self.held_bytes + size_bytes > max_held_bytes:
            raise Overloaded("the bodies of running requests fill all the room there is; try again later")
        self.held_bytes += size_bytes


class Body:
    """A body as it arrives."""

    def __init__(self, gate: Gate, max_held_bytes: int) -> None:
        self.data = bytearray()
        self._gate = gate
        self._max_held_bytes = max_held_bytes

    def add(self, chunk: bytes) -> None:
        """Append *chunk*. Raises RequestTooLarge, or Overloaded if there is no room."""
        self._gate.check_size(len(self.data) + len(chunk))
        self._gate.take(len(chunk), self._max_held_bytes)
        self.data += chunk
