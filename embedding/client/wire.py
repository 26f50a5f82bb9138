"""Requests that are sent again while that may help, over one pool of connections."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

import httpx

from embedding.client.errors import MAX_TOLD_CHARS, BadAnswer, Refused, Unreachable
from embedding.client.retries import Attempts, may_pass, retry_after_s


if TYPE_CHECKING:
    from collections.abc import Callable

CONNECT_S: Final = 10.0


class Wire:
    """Sends JSON and reads JSON, with *headers* on every request."""

    def __init__(self, headers: dict[str, str], *, attempts: int, connections: int) -> None:
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._http = httpx.AsyncClient(headers=headers, limits=limits, follow_redirects=False)
        self._attempts = attempts

    def attempts(self, timeout_s: float) -> Attempts:
        """Return the attempts that a call of *timeout_s* has."""
        return Attempts.within(timeout_s, count=self._attempts)

    async def send(
        self, method: str, url: str, attempts: Attempts, body: Callable[[], bytes] | None = None
    ) -> Any:
        """Return what *url* answers, parsed. *body* is asked anew for each attempt: a signature serves once.

        Raises Refused for a status that no attempt changes, Unreachable when attempts or time are used up,
        BadAnswer for what is not JSON.
        """
        sent = 0
        while True:
            outcome = await self._once(method, url, attempts, body)
            sent += 1
            if isinstance(outcome, httpx.Response) and outcome.is_success:
                return _parsed(outcome)
            if not may_pass(outcome):
                raise _refusal(outcome)
            asked_s = retry_after_s(outcome.headers) if isinstance(outcome, httpx.Response) else None
            pause_s = attempts.pause_s(sent, asked_s)
            if pause_s is None:
                raise Unreachable(f"no answer after {sent} attempts; the last: {_told(outcome)}")
            await asyncio.sleep(pause_s)

    async def _once(
        self, method: str, url: str, attempts: Attempts, body: Callable[[], bytes] | None
    ) -> httpx.Response | httpx.TransportError:
        timeout = httpx.Timeout(
            max(attempts.left_s, 1e-3), connect=min(CONNECT_S, max(attempts.left_s, 1e-3))
        )
        content = None if body is None else body()
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            return await self._http.request(method, url, content=content, headers=headers, timeout=timeout)
        except httpx.TransportError as fault:
            return fault

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()


def to_json(value: Any) -> bytes:
    """Return *value* as compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


def _parsed(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        raise BadAnswer(f"the answer is not JSON: {response.text[:MAX_TOLD_CHARS]!r}") from None


def _refusal(outcome: httpx.Response | httpx.TransportError) -> Exception:
    if isinstance(outcome, httpx.Response):
        return Refused(outcome.status_code, outcome.text or outcome.reason_phrase)
    return Unreachable(_told(outcome))


def _told(outcome: httpx.Response | httpx.TransportError) -> str:
    if isinstance(outcome, httpx.Response):
        return f"HTTP {outcome.status_code} {outcome.text[:MAX_TOLD_CHARS]}"
    return f"{type(outcome).__name__} {outcome}".strip()
