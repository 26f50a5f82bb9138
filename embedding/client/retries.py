"""When a request is sent again, and after how long.

Again after 429, 5xx and lost connections, for nothing of it says that the request is wrong; never after any
other status. Pauses have full jitter (random between nothing and a bound that doubles), so that callers who
were cut off together do not return together (Brooker, "Exponential Backoff And Jitter", AWS 2015). A service
that says how long to wait, by Retry-After, is believed.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

import httpx


if TYPE_CHECKING:
    from collections.abc import Mapping

AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
FIRST_PAUSE_S: Final = 0.5
MAX_PAUSE_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Attempts:
    """How often a request is sent in all, and until when, in seconds of `time.monotonic()`."""

    count: int
    deadline_s: float

    @classmethod
    def within(cls, timeout_s: float, *, count: int) -> Attempts:
        """Return *count* attempts within *timeout_s* from now."""
        return cls(count, time.monotonic() + timeout_s)

    @property
    def left_s(self) -> float:
        """How many seconds are left, 0 at least."""
        return max(0.0, self.deadline_s - time.monotonic())

    def pause_s(self, sent: int, retry_after_s: float | None = None) -> float | None:
        """Return how long to wait after *sent* attempts, or None if there shall be no other."""
        bound_s = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2 ** (sent - 1))
        jitter_s = random.uniform(0, bound_s)  # noqa: S311  not for secrets
        pause_s = jitter_s if retry_after_s is None else retry_after_s + jitter_s / 4
        return None if sent >= self.count or pause_s >= self.left_s else pause_s


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return how many seconds `Retry-After` asks to wait, 0 at least, or None if it does not say."""
    told = headers.get("retry-after", "")
    if told.isdecimal():
        return float(told)
    try:
        return max(0.0, parsedate_to_datetime(told).timestamp() - time.time())
    except ValueError:
        return None


def may_pass(outcome: httpx.Response | httpx.TransportError) -> bool:
    """Return whether what went wrong may have passed by the next attempt."""
    if isinstance(outcome, httpx.TransportError):
        return not isinstance(outcome, httpx.UnsupportedProtocol)
    return outcome.status_code in AGAIN
