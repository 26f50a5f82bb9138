"""One connection to a checked address, which never outlives the deadline of what is asked on it.

The socket goes to the address, while Host header, TLS server name and the certificate's name stay those of
the URL: a second lookup, which could answer differently, never happens (DNS rebinding).

`http.client` rather than `requests`: that has no deadline for a whole download, only a timeout per read, and
can dial a chosen address only by way of its adapters' internals.
"""

from __future__ import annotations

import select
import socket
import ssl
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any, Final

from embedding.intake.answer import Answer


if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedding.intake.deadline import Deadline
    from embedding.intake.limits import FetchLimits
    from embedding.intake.urls import Place

_HEADERS: Final = {
    "Accept": "image/jpeg, image/png, image/webp, image/gif, */*;q=0.1",
    "Accept-Encoding": "identity",  # a compressed body could grow past the limit once it is here
    "User-Agent": "clip-embedding-worker",
}


class PinnedConnection(HTTPConnection):
    """HTTP or HTTPS to one address of *place*, whatever its host's name resolves to by now."""

    auto_open = 0  # one that is lost is lost: `http.client` would dial again

    def __init__(self, place: Place, *, tls: ssl.SSLContext, limits: FetchLimits) -> None:
        super().__init__(place.host, place.port)
        self.default_port = {"https": 443, "http": 80}[place.scheme]  # left out of the Host header
        self.place = place
        self.address = ""
        self.answer: Answer | None = None
        self._tls = tls if place.scheme == "https" else None
        self._limits = limits
        self._deadline: Deadline

    def open(self, addresses: Sequence[str], deadline: Deadline) -> None:
        """Connect to the first of *addresses* that answers; raises OSError if none does."""
        dialled = self._dial(addresses, deadline)
        try:
            dialled.settimeout(deadline.clip_s(self._limits.connect_timeout_s))
            self.sock = self._tls.wrap_socket(dialled, server_hostname=self.host) if self._tls else dialled
        except OSError:
            dialled.close()
            raise

    def get(self, path: str, deadline: Deadline) -> Answer:
        """Ask for *path* and return the answer, its body unread.

        Raises OSError or HTTPException; `answer` is None, or has not begun, if the server said nothing.
        """
        self._deadline = deadline
        self.answer = None
        self.sock.settimeout(deadline.clip_s(self._limits.read_timeout_s))
        self.request("GET", path, headers=_HEADERS)
        self.getresponse()
        assert self.answer is not None
        return self.answer

    def response_class(self, sock: socket.socket, **options: Any) -> Answer:  # type: ignore[override]
        """Make the answer that `http.client` then reads; remembered even if that fails."""
        self.answer = Answer(sock, deadline=self._deadline, limits=self._limits, **options)
        return self.answer

    def is_clean(self) -> bool:
        """Return whether it is open, and what comes next on it must be the answer to the next request."""
        return self.sock is not None and self.answer is not None and self.answer.leaves_clean()

    def is_quiet(self) -> bool:
        """Return whether nothing has arrived that nobody asked for: neither an end nor a single byte."""
        if isinstance(self.sock, ssl.SSLSocket) and self.sock.pending():
            return False
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return not poll.poll(0)

    def _dial(self, addresses: Sequence[str], deadline: Deadline) -> socket.socket:
        failure: OSError = TimeoutError()
        for address in addresses:
            try:
                timeout_s = deadline.clip_s(self._limits.connect_timeout_s)
                dialled = socket.create_connection((address, self.port), timeout_s)
            except OSError as exc:
                failure = exc
            else:
                self.address = address
                return dialled
        raise failure
