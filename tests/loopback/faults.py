"""Answers that the platform is told to give instead of its own: misbehaviour that others must bear.

A fault is armed for a route and a number of answers, used up in the order armed, and gone after that.
The SDK's reaction to each was read from its 1.12.0 sources:
on job-take 429 sleeps 5 s and all others are retried at once;
on job-done 5xx is retried after 2 s and again after 3 s, 4xx is dropped at the first answer.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from dataclasses import dataclass

from aiohttp import web


OK = 200


@dataclass(frozen=True, slots=True)
class Fault:
    """One answer: HTTP status, raw body and content type.

    One that drops breaks the connection instead, on job-take and job-done; with status 200 a result counts
    before that, and its worker cannot know.
    """

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    drops: bool = False

    @property
    def counts(self) -> bool:
        """Whether a result is taken although its worker does not hear so."""
        return self.drops and self.status == OK

    def response(self) -> web.Response:
        """Return a fresh response; one response object can be sent only once."""
        return web.Response(status=self.status, body=self.body, content_type=self.content_type)


TRUNCATED_JSON = Fault(200, b'[{"id": "cut-off", "inp')
DROPPED = Fault(500, drops=True)
LOST_REPLY = Fault(OK, drops=True)
WRONG_CONTENT_TYPE = Fault(200, b"<html>gateway</html>", "text/html")


class Faults:
    """The faults armed and used up per route, and how long each job-done is held before it counts."""

    def __init__(self) -> None:
        self.done_delay_s = 0.0
        self.used: Counter[str] = Counter()
        self._armed: defaultdict[str, deque[Fault]] = defaultdict(deque)

    def arm(self, route: str, fault: Fault, times: int) -> None:
        """Let the next *times* answers of *route* be *fault*."""
        self._armed[route].extend([fault] * times)

    def next(self, route: str) -> Fault | None:
        """Use up and return the next fault of *route*, or None where none is armed."""
        armed = self._armed.get(route)
        if not armed:
            return None
        self.used[route] += 1
        return armed.popleft()
