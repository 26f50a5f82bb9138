"""An image URL in, its bytes out: what a download may do, how long it may take, when it is tried again.

Threat: a caller who makes this worker ask its own network, or who holds its threads. A host is looked up
at most once in a download, all its addresses are checked, one of them is dialled; every redirect passes the
same gate. A connection left from an earlier request to the same place spares lookup and dialling. One
deadline encloses lookup, connecting, redirects, retries and body. The environment is not asked: no proxies,
no stored credentials, no cookies. Numbers: `FetchLimits`.

Answers tell little of the network: one message for every refusal (UrlRefused), one for a host that cannot
be looked up, reached or heard out in time. The status code of a public server is told.
"""

from __future__ import annotations

import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPException, IncompleteRead
from typing import TYPE_CHECKING, Final

import certifi

from embedding.errors import DownloadError, ImageTooLarge, UrlRefused
from embedding.intake.addresses import is_public
from embedding.intake.answer import TooMuch
from embedding.intake.connection import PinnedConnection
from embedding.intake.deadline import Deadline
from embedding.intake.limits import FetchLimits
from embedding.intake.pool import Pool
from embedding.intake.retries import Busy, RetryBudget, pause_s
from embedding.intake.urls import REFUSAL, Place, Target, parse_url, redirect


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from embedding.intake.answer import Answer

__all__ = ["FetchLimits", "Fetcher", "system_addresses"]

FAILURE: Final = "the image could not be downloaded"
UNREACHABLE: Final = f"{FAILURE}: its server could not be reached or did not answer in time"

_NOT_HTTP: Final = "the server's answer is not HTTP"
_OK: Final = 200
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_TOO_MANY_REQUESTS: Final = 429
_SERVER_ERROR: Final = 500
_CHUNK_BYTES: Final = 1 << 16
_DNS_THREADS: Final = 32
_NO_SUCH_HOST: Final = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})


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
        self._lookups = ThreadPoolExecutor(
            _DNS_THREADS, "dns"
        )  # getaddrinfo knows no timeout but RES_OPTIONS
        self._pool = Pool(self._limits, is_allowed)
        self._budget = RetryBudget(self._limits)

    def close(self) -> None:
        """Close idle connections, start no further lookups; the process still waits for those that hang."""
        self._pool.close()
        self._lookups.shutdown(wait=False, cancel_futures=True)

    def fetch(self, url: str) -> bytes:
        """Return the body behind *url*, not empty, at most `max_bytes`.

        Raises UrlRefused if *url*, a redirect, or an address is not allowed; ImageTooLarge; DownloadError
        for all else, retryable where another try may succeed (after as many tries here as are allowed).
        """
        deadline = Deadline.after(self._limits.timeout_s)
        target = parse_url(url, self._limits)
        known: dict[Place, Sequence[str]] = {}
        attempt = 1
        while True:
            try:
                image = self._follow(target, known, deadline)
            except DownloadError as failure:
                wait_s = pause_s(failure, attempt, self._limits)
                hopeless = not failure.retryable or attempt >= self._limits.max_attempts
                if hopeless or wait_s >= deadline.remaining_s() or not self._budget.spend():
                    raise
            else:
                self._budget.earn()
                return image
            time.sleep(wait_s)
            attempt += 1

    def _follow(self, target: Target, known: dict[Place, Sequence[str]], deadline: Deadline) -> bytes:
        for _ in range(self._limits.max_redirects + 1):
            with _own_errors():
                outcome = self._ask(target, known, deadline)
            if isinstance(outcome, bytes):
                return outcome
            target = outcome
        raise DownloadError(f"{FAILURE}: more than {self._limits.max_redirects} redirects")

    def _ask(self, target: Target, known: dict[Place, Sequence[str]], deadline: Deadline) -> bytes | Target:
        """Return the body, or where the server sends us instead."""
        kept = self._pool.take(target.place)
        if kept is not None:
            try:
                return self._converse(kept, target, deadline)
            except TimeoutError:
                raise
            except OSError:  # closed by the server meanwhile, unless it has begun to answer
                if kept.answer is not None and kept.answer.has_begun:
                    raise
        if target.place not in known:
            known[target.place] = self._lookup(target, deadline)
        dialled = PinnedConnection(target.place, tls=self._tls, limits=self._limits)
        dialled.open(known[target.place], deadline)
        return self._converse(dialled, target, deadline)

    def _converse(self, connection: PinnedConnection, target: Target, deadline: Deadline) -> bytes | Target:
        try:
            with connection.get(target.path, deadline) as answer:
                location = answer.getheader("Location")
                if answer.status == _OK:
                    return self._read(answer)
                answer.skip_body()
                if answer.status in _REDIRECTS and location is not None:
                    return redirect(target, location, self._limits)
                raise _failure(answer)
        finally:
            self._pool.keep(connection)

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

    def _read(self, answer: Answer) -> bytes:
        _check_coding(answer)
        limit = self._limits.max_bytes
        if answer.length is not None and answer.length > limit:
            raise ImageTooLarge(f"the image has {answer.length} bytes; the limit is {limit}")
        body = bytearray()
        while chunk := answer.read(_CHUNK_BYTES):
            body += chunk
            if len(body) > limit:
                raise ImageTooLarge(f"the image has more than {limit} bytes, which is the limit")
        if answer.length:
            raise IncompleteRead(b"", answer.length)
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
    except TooMuch as exc:
        raise DownloadError(f"{FAILURE}: the server sent too much beside it") from exc
    except HTTPException as exc:
        raise DownloadError(f"{FAILURE}: {_NOT_HTTP}") from exc


def _failure(answer: Answer) -> DownloadError:
    told = f"{FAILURE}: the server answered {answer.status}"
    if answer.status == _TOO_MANY_REQUESTS or answer.status >= _SERVER_ERROR:
        return Busy(told, answer.getheader("Retry-After", ""))
    return DownloadError(told)


def _check_coding(answer: Answer) -> None:
    if answer.getheader("Content-Encoding", "identity").lower() != "identity":
        raise DownloadError(f"{FAILURE}: the server compressed it, unasked")
    if answer.getheader("Transfer-Encoding") is not None and not answer.chunked:
        raise DownloadError(f"{FAILURE}: {_NOT_HTTP}")
