"""Requests that are sent again while that may help, over one pool of connections.

A pool belongs to an event loop, so a client that meets another loop, in a second `asyncio.run` or after a
fork, opens a new one. What is told of an answer never holds the credential, even where a server echoes it.

The proxies that the environment names are used as other programs use them: of https they see the host alone.
Plain http that holds a credential, or is for this machine, passes them by, since a proxy could read it, or
would ask its own machine. Plain http to another machine, signed or open, goes through the proxy that is set:
like everybody on that way it sees the items and vectors, may change the answer, and may deliver the job later
or in place of the caller, once and before the signature ends; it cannot sign another.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import httpx
import orjson

from embedding import __version__
from embedding.client.errors import (
    TOLD_CHARS,
    BadAnswer,
    ClientError,
    Closed,
    NotConfigured,
    Refused,
    Unreachable,
)
from embedding.client.retries import Attempts, may_pass, retry_after_s
from embedding.contract.destinations import may_carry_credentials


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

CONNECT_S: Final = 10.0
LATE_S: Final = 5.0  # for an answer whose caller was cancelled, and for what that takes
SPARE_CONNECTIONS: Final = 4  # for cancelling and asking after jobs while all others are waited on
CERTIFICATE: Final = "CERTIFICATE_VERIFY_FAILED"
ENVIRONMENT: Final = "HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE, SSL_CERT_DIR"

_LOG: Final = logging.getLogger(__name__)

Outcome = httpx.Response | httpx.RequestError | TimeoutError


class Wire:
    """Sends JSON and reads JSON, each request *attempts* times at most, with *credential* as its bearer.

    *silence_s* is how long a connection may say nothing before it counts as lost; None: the time of the call.
    """

    def __init__(
        self, credential: str | None, *, attempts: int, connections: int, silence_s: float | None = None
    ) -> None:
        self._credential = credential
        self._attempts = attempts
        self._connections = connections + SPARE_CONNECTIONS
        self._timeout = httpx.Timeout(silence_s, connect=CONNECT_S, pool=None)
        self._http: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False

    def attempts(self, timeout_s: float) -> Attempts:
        """Return the attempts that a call of *timeout_s* has."""
        return Attempts.within(timeout_s, count=self._attempts)

    async def send(
        self,
        method: str,
        url: str,
        attempts: Attempts,
        body: Callable[[], bytes] | None = None,
        late: Callable[[Any], Awaitable[None]] | None = None,
    ) -> Any:
        """Return what *url* answers, parsed. *body* is asked anew for each attempt: a signature serves once.

        When the caller is cancelled no other attempt begins. One that is on its way is given up, or where
        there is *late*, is waited for, and what it answers is handed to that.
        Raises Refused for a status that no attempt changes, Unreachable when attempts or time are used up,
        BadAnswer for what is not JSON, Closed after `aclose`, NotConfigured where no request can be made.
        """
        sent = 0
        while True:
            outcome = await self._once(method, url, attempts, body, late)
            sent += 1
            if isinstance(outcome, httpx.Response) and outcome.is_success:
                return self._parsed(outcome)
            if isinstance(outcome, httpx.Response) and not may_pass(outcome.status_code):
                raise self._refusal(outcome)
            asked_s = retry_after_s(outcome.headers) if isinstance(outcome, httpx.Response) else None
            pause_s = None if CERTIFICATE in str(outcome) else attempts.pause_s(sent, asked_s)
            if pause_s is None:
                raise Unreachable(self._told_of(outcome, url, sent, asked_s))
            _LOG.info("%s; trying again", self._told_of(outcome, url, sent, asked_s))
            await asyncio.sleep(pause_s)

    async def aclose(self) -> None:
        """Close all connections; every call after that raises Closed."""
        self._is_closed = True
        if self._http is not None and self._loop is asyncio.get_running_loop():
            await self._http.aclose()

    async def _once(
        self,
        method: str,
        url: str,
        attempts: Attempts,
        body: Callable[[], bytes] | None,
        late: Callable[[Any], Awaitable[None]] | None,
    ) -> Outcome:
        content = None if body is None else await asyncio.to_thread(body)
        request = self._request(method, url, attempts, content)
        return await (request if late is None else self._kept(request, late))

    async def _request(self, method: str, url: str, attempts: Attempts, content: bytes | None) -> Outcome:
        headers = {} if content is None else {"Content-Type": "application/json"}
        try:
            async with asyncio.timeout(attempts.left_s):
                return await self._pool(url).request(method, url, content=content, headers=headers)
        except (httpx.RequestError, TimeoutError) as fault:
            return fault
        except (httpx.InvalidURL, UnicodeError):
            raise NotConfigured("the worker's address has a host that cannot be one") from None

    async def _kept(
        self, request: Coroutine[Any, Any, Outcome], late: Callable[[Any], Awaitable[None]]
    ) -> Outcome:
        asking = asyncio.ensure_future(request)
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            with suppress(ClientError, TimeoutError):
                async with asyncio.timeout(LATE_S):
                    outcome = await asking
                    if isinstance(outcome, httpx.Response) and outcome.is_success:
                        await late(self._parsed(outcome))
            raise

    def _pool(self, url: str) -> httpx.AsyncClient:
        if self._is_closed:
            raise Closed("this client is closed: make a new one")
        loop = asyncio.get_running_loop()
        if self._http is None or self._loop is not loop:
            self._http, self._loop = self._opened(url), loop
        return self._http

    def _opened(self, url: str) -> httpx.AsyncClient:
        """Return a pool for the host of *url*."""
        headers = {"User-Agent": f"clip-embedding-client/{__version__}"}
        if self._credential is not None:
            headers["Authorization"] = f"Bearer {self._credential}"
        limits = httpx.Limits(max_connections=self._connections, max_keepalive_connections=self._connections)
        is_plain = not url.lower().startswith("https:")
        is_direct = is_plain and (self._credential is not None or may_carry_credentials(url))
        try:
            return httpx.AsyncClient(
                headers=headers, limits=limits, timeout=self._timeout, trust_env=not is_direct
            )
        except (httpx.InvalidURL, ImportError, OSError, ValueError) as fault:
            why = str(fault) if isinstance(fault, ImportError) else type(fault).__name__
            raise NotConfigured(f"one of {ENVIRONMENT} cannot be used: {why}") from None

    def _parsed(self, response: httpx.Response) -> Any:
        try:
            return orjson.loads(response.content)
        except ValueError:
            told = self._told(response.text)[:TOLD_CHARS]
            raise BadAnswer(f"the answer is not JSON, so no worker gave it: {told!r}") from None

    def _refusal(self, response: httpx.Response) -> Refused:
        text = self._told(response.text) or response.reason_phrase
        if not response.has_redirect_location:
            return Refused(response.status_code, text)
        to = response.headers["location"].partition("?")[0][:TOLD_CHARS]
        return Refused(response.status_code, text, f"it redirects to {self._told(to)}: give that address")

    def _told_of(self, outcome: Outcome, url: str, sent: int, asked_s: float | None) -> str:
        """Return what became of *sent* attempts; of *url* the host alone, which holds no credential."""
        if isinstance(outcome, httpx.Response):
            last = f"HTTP {outcome.status_code} {self._told(outcome.text)[:TOLD_CHARS]}"
        elif isinstance(outcome, TimeoutError):
            last = "nothing came before the time was over"
        else:
            last = f"{type(outcome).__name__} {self._told(str(outcome))}"
        asked = "" if asked_s is None else f", which asks to wait {asked_s:.0f} s"
        times = "1 attempt" if sent == 1 else f"{sent} attempts"
        host = self._told(httpx.URL(url).netloc.decode())
        return f"no answer from {host} after {times}; the last: {last.strip()}{asked}"

    def _told(self, text: str) -> str:
        return text.replace(self._credential, "***") if self._credential else text


def to_json(value: Any) -> bytes:
    """Return *value* as compact JSON."""
    return orjson.dumps(value)
