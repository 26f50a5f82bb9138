"""Answers that the API is told to give instead of its own, and connections that it breaks.

A fault is armed for a route and a number of requests, used up in the order armed, and gone after that.
The text of the quota refusal is the one that users of the API report, with the status that REST v2 gives it.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass

from .wire import Answer, problem


ANY_ROUTE = "*"


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one request.

    With *has_effect* the request is carried out first. Then it is held for *stall_s*; if the client hangs up
    during that, nothing else happens. Then the connection is cut (*drops*), or *answer* is given, or, with
    neither, the API's own answer.
    """

    answer: Answer | None = None
    drops: bool = False
    has_effect: bool = False
    stall_s: float = 0.0


DROPPED = Fault(drops=True)
LOST_ANSWER = Fault(drops=True, has_effect=True)


def stalled(stall_s: float = 60.0, *, has_effect: bool = False) -> Fault:
    """Hold the request, before or after its effect; end the wait by stopping the client."""
    return Fault(stall_s=stall_s, has_effect=has_effect)


def refused(status: int, detail: str, *errors: str) -> Fault:
    """Refuse the request with a problem document."""
    return Fault(problem(status, detail, *errors))


def unprocessable(*errors: str) -> Fault:
    """Refuse the request's body; each error reads like "$.gpu.pools: ..."."""
    return refused(422, "Request validation failed.", *errors)


def broken(status: int = 503) -> Fault:
    """Answer as a failing server does."""
    return refused(status, "upstream request failed")


def rate_limited(retry_after_s: int = 1) -> Fault:
    """Refuse the request for now, with Retry-After and no requests left in the minute."""
    limits = {
        "Retry-After": str(retry_after_s),
        "RateLimit": f'"minute";r=0;t={retry_after_s}, "hour";r=2800;t=1812, "day";r=49500;t=45012',
    }
    return Fault(problem(429, "rate limit exceeded for the minute window", headers=limits))


def over_quota(quota: int = 5, left: int = 0) -> Fault:
    """Refuse the request because the account may not have so many workers."""
    return refused(400, quota_text(quota, left))


def quota_text(quota: int, left: int) -> str:
    """Return how the API words that the workers of all endpoints together are too many."""
    return (
        f"Max workers across all endpoints must not exceed your workers quota ({quota}). "
        "Reduce the max workers for other endpoints or lower the max worker count for this endpoint "
        f"to at most {left}."
    )


class Faults:
    """The faults armed per route."""

    def __init__(self) -> None:
        self._armed: defaultdict[str, deque[Fault]] = defaultdict(deque)

    def arm(self, route: str, fault: Fault, times: int) -> None:
        """Let *fault* meet the next *times* requests of *route*, or of any route for "*"."""
        self._armed[route].extend([fault] * times)

    def next(self, route: str) -> Fault:
        """Use up and return the next fault of *route*; one that does nothing where none is armed."""
        for key in (route, ANY_ROUTE):
            if self._armed[key]:
                return self._armed[key].popleft()
        return Fault()
