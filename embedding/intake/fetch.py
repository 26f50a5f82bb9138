"""An image URL in, its bytes out: what a download may do, how long it may take, when it is tried again.

Threat: a caller who makes this worker ask its own network, or who holds its threads. A host is looked up
once in a download, all its addresses are checked, one of them is dialled; every redirect passes the same
gate. One deadline encloses lookup, connecting, redirects, retries and body. The environment is not asked:
no proxies, no stored credentials, no cookies. Numbers: `FetchLimits`.

Answers tell little of the network: one message for every refusal (UrlRefused), one for a host that cannot
be looked up, reached or heard out in time. The status code of a public server is told.
"""

from __future__ import annotations

import math
import random
import re
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPException, HTTPResponse, IncompleteRead
from typing import TYPE_CHECKING, Final

import certifi

from embedding.errors import DownloadError, ImageTooLarge, UrlRefused
from embedding.intake.addresses import is_public
from embedding.intake.connection import Deadline, PinnedConnection
from embedding.intake.limits import FetchLimits
from embedding.intake.urls import REFUSAL, Target, parse_url, redirect


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["FetchLimits", "Fetcher", "system_addresses"]

FAILURE: Final = "the image could not be downloaded"
UNREACHABLE: Final = f"{FAILURE}: its server could not be reached or did not answer in time"

_HEADERS: Final = {
    "Accept": "image/jpeg, image/png, image/webp, image/gif, */*;q=0.1",
    "Accept-Encoding": "identity",  # a compressed body could grow past the limit once it is here
    "User-Agent": "clip-embedding-worker",
    "Connection": "close",
}
_OK: Final = 200
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_TOO_MANY_REQUESTS: Final = 429
_SERVER_ERROR: Final = 500
_CHUNK_BYTES: Final = 1 << 16
_DNS_THREADS: Final = 32
_SECONDS: Final = re.compile(r"[0-9]{1,9}")
_NO_SUCH_HOST: Final = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})


class _Busy(DownloadError):
    """The server asks to come back later; *retry_after_s* is 0 where it does not say when."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message, retryable=True)
        self.retry_after_s = retry_after_s


def system_addresses(host: str, port: int) -> list[str]:
    """Return all addresses that the system's resolver knows for *host*; raises OSError.

    A link-local address keeps its scope ("fe80::1%2"), so that it cannot be taken for another.
    """
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(_with_scope(*place) for *_, place in answers))


class Fetcher:
    """Downloads images; safe to share between threads. Each call blocks for `timeout_s` at most.

    *resolver*, *is_allowed* and *tls* stand for the system's resolver, the address policy and the trusted
    certificate authorities; tests replace them to reach servers of their own.
    """

    def __init__(
        self,
        limits: FetchLimits | None = None,
        *,
        resolver: Callable[[str, int], Sequence[str]] = system_addresses,
        is_allowed: Callable[[str], bool] = is_public,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._limits = limits or FetchLimits()
        self._resolver = resolver
        self._is_allowed = is_allowed
        self._tls = tls or ssl.create_default_context(cafile=certifi.where())
        self._lookups = ThreadPoolExecutor(_DNS_THREADS, "dns")  # getaddrinfo knows no timeout

    def close(self) -> None:
        """Start no further lookups; the process still waits for those that hang."""
        self._lookups.shutdown(wait=False, cancel_futures=True)

    def fetch(self, url: str) -> bytes:
        """Return the body behind *url*, not empty, at most `max_bytes`.

        Raises UrlRefused if *url*, a redirect, or an address is not allowed; ImageTooLarge; DownloadError
        for all else, retryable where another try may succeed (after as many tries here as are allowed).
        """
        deadline = Deadline.after(self._limits.timeout_s)
        target = parse_url(url, self._limits)
        known: dict[tuple[str, int], Sequence[str]] = {}
        attempt = 1
        while True:
            try:
                return self._follow(target, known, deadline)
            except DownloadError as failure:
                pause_s = _pause_s(failure, attempt, self._limits)
                hopeless = not failure.retryable or attempt >= self._limits.max_attempts
                if hopeless or pause_s >= deadline.remaining_s():
                    raise
            time.sleep(pause_s)
            attempt += 1

    def _follow(
        self, target: Target, known: dict[tuple[str, int], Sequence[str]], deadline: Deadline
    ) -> bytes:
        for _ in range(self._limits.max_redirects + 1):
            with _own_errors():
                place = (target.host, target.port)
                if place not in known:
                    known[place] = self._lookup(target, deadline)
                answer = self._ask(target, known[place], deadline)
            if isinstance(answer, bytes):
                return answer
            target = answer
        raise DownloadError(f"{FAILURE}: more than {self._limits.max_redirects} redirects")

    def _lookup(self, target: Target, deadline: Deadline) -> Sequence[str]:
        timeout_s = deadline.clip_s(self._limits.dns_timeout_s)
        lookup = self._lookups.submit(self._resolver, target.host, target.port)
        try:
            addresses = lookup.result(timeout_s)
        finally:
            lookup.cancel()  # one that has not begun by now never will
        if not all(self._is_allowed(address) for address in addresses):
            raise UrlRefused(REFUSAL)
        return addresses

    def _ask(self, target: Target, addresses: Sequence[str], deadline: Deadline) -> bytes | Target:
        """Return the body, or where the server sends us instead."""
        connection = PinnedConnection(
            target, addresses, tls=self._tls, limits=self._limits, deadline=deadline
        )
        with closing(connection):
            connection.request("GET", target.path, headers=_HEADERS)
            with connection.getresponse() as response:
                location = response.getheader("Location")
                if response.status in _REDIRECTS and location is not None:
                    return redirect(target, location, self._limits)
                _check_status(response)
                return self._read(response)

    def _read(self, response: HTTPResponse) -> bytes:
        limit = self._limits.max_bytes
        if response.length is not None and response.length > limit:
            raise ImageTooLarge(f"the image has {response.length} bytes; the limit is {limit}")
        body = bytearray()
        while chunk := response.read(_CHUNK_BYTES):
            body += chunk
            if len(body) > limit:
                raise ImageTooLarge(f"the image has more than {limit} bytes, which is the limit")
        if response.length:
            raise IncompleteRead(b"", response.length)
        if not body:
            raise DownloadError(f"{FAILURE}: the server sent nothing")
        return bytes(body)


def _with_scope(address: str | int, _port: str | int | bytes, _flow: int = 0, scope: int = 0) -> str:
    return f"{address}%{scope}" if scope else str(address)


@contextmanager
def _own_errors() -> Iterator[None]:
    """Translate what sockets, TLS and `http.client` raise."""
    try:
        yield
    except ssl.SSLCertVerificationError as exc:
        raise DownloadError(f"{FAILURE}: the server's certificate is not valid for it") from exc
    except socket.gaierror as exc:
        raise DownloadError(UNREACHABLE, retryable=exc.errno not in _NO_SUCH_HOST) from exc
    except (OSError, IncompleteRead) as exc:
        raise DownloadError(UNREACHABLE, retryable=True) from exc
    except HTTPException as exc:
        raise DownloadError(f"{FAILURE}: the server's answer is not HTTP") from exc


def _check_status(response: HTTPResponse) -> None:
    told = f"{FAILURE}: the server answered {response.status}"
    if response.status == _TOO_MANY_REQUESTS or response.status >= _SERVER_ERROR:
        raise _Busy(told, _retry_after_s(response.getheader("Retry-After", "")))
    if response.status != _OK:
        raise DownloadError(told)
    if response.getheader("Content-Encoding", "identity").lower() != "identity":
        raise DownloadError(f"{FAILURE}: the server compressed it, unasked")


def _retry_after_s(header: str) -> float:
    """Return the seconds of a Retry-After header; a date, or nonsense, counts as none."""
    return float(header) if _SECONDS.fullmatch(header) else 0.0


def _pause_s(failure: DownloadError, attempt: int, limits: FetchLimits) -> float:
    """Return how long to wait before the next try; infinite if the server asks for too much."""
    longest_s = min(limits.backoff_cap_s, limits.backoff_base_s * 2 ** (attempt - 1))
    backoff_s = random.uniform(0, longest_s)  # noqa: S311  jitter
    retry_after_s = failure.retry_after_s if isinstance(failure, _Busy) else 0.0
    return max(backoff_s, retry_after_s) if retry_after_s <= limits.max_retry_after_s else math.inf
