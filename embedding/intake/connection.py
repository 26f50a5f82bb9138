"""One connection to a checked address, which never outlives its deadline.

The socket goes to the address, while Host header, TLS server name and the certificate's name stay those of
the URL: a second lookup, which could answer differently, never happens (DNS rebinding). Every single read
is given what is left of the deadline, the header's reads too: the timeout of `http.client` is per read, so
that a server sending one byte every four seconds would hold a thread for ever.
"""

from __future__ import annotations

import io
import socket
import time
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPResponse
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from typing_extensions import Buffer

    from embedding.intake.limits import FetchLimits
    from embedding.intake.urls import Target


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock, passed down through everything that waits."""

    at_s: float

    @classmethod
    def after(cls, timeout_s: float) -> Deadline:
        """Return the deadline *timeout_s* from now."""
        return cls(time.monotonic() + timeout_s)

    def remaining_s(self) -> float:
        """Return the seconds left, negative once it has passed."""
        return self.at_s - time.monotonic()

    def clip_s(self, timeout_s: float) -> float:
        """Return the shorter of *timeout_s* and what is left; raises TimeoutError if nothing is."""
        remaining_s = self.remaining_s()
        if remaining_s <= 0:
            raise TimeoutError
        return min(timeout_s, remaining_s)


class PinnedConnection(HTTPConnection):
    """HTTP or HTTPS to one of *addresses*, whatever the host's name resolves to by now."""

    def __init__(
        self,
        target: Target,
        addresses: Sequence[str],
        *,
        tls: ssl.SSLContext,
        limits: FetchLimits,
        deadline: Deadline,
    ) -> None:
        super().__init__(target.host, target.port)
        self.default_port = {"https": 443, "http": 80}[target.scheme]  # left out of the Host header
        self.response_class = partial(_DeadlineResponse, deadline=deadline, limits=limits)  # type: ignore[assignment]
        self._tls = tls if target.scheme == "https" else None
        self._addresses = addresses
        self._limits = limits
        self._deadline = deadline

    def connect(self) -> None:
        """Connect to the first address that answers; raises OSError if none does."""
        dialled = self._dial()
        try:
            dialled.settimeout(self._deadline.clip_s(self._limits.connect_timeout_s))
            self.sock = self._tls.wrap_socket(dialled, server_hostname=self.host) if self._tls else dialled
        except OSError:
            dialled.close()
            raise

    def _dial(self) -> socket.socket:
        failure: OSError = TimeoutError()
        for address in self._addresses:
            try:
                timeout_s = self._deadline.clip_s(self._limits.connect_timeout_s)
                return socket.create_connection((address, self.port), timeout_s)
            except OSError as exc:
                failure = exc
        raise failure


class _DeadlineResponse(HTTPResponse):
    def __init__(
        self, sock: socket.socket, *args: Any, deadline: Deadline, limits: FetchLimits, **kwargs: Any
    ) -> None:
        super().__init__(sock, *args, **kwargs)
        reader = _DeadlineReader(self.fp.detach(), sock, deadline, limits.read_timeout_s)
        self.fp = io.BufferedReader(reader)


class _DeadlineReader(io.RawIOBase):
    def __init__(
        self, raw: io.RawIOBase, sock: socket.socket, deadline: Deadline, read_timeout_s: float
    ) -> None:
        self._raw = raw
        self._sock = sock
        self._deadline = deadline
        self._read_timeout_s = read_timeout_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int | None:
        self._sock.settimeout(self._deadline.clip_s(self._read_timeout_s))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()
