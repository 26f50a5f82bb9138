"""When a request is sent again, and after how long.

Again after 408, 425, 429, 5xx and lost connections, for nothing of it says that the request is wrong; never
after any other status. Pauses have full jitter (random between nothing and a bound that doubles), so that
callers who were cut off together do not return together (Brooker, "Exponential Backoff And Jitter", AWS
2015). A service that says how long to wait, by Retry-After, is believed; a date in it is held against the
answer's own Date, so that no clock need be right.
"""

from __future__ import annotations

import random
import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final


if TYPE_CHECKING:
    from collections.abc import Mapping

AGAIN: Final = frozenset({408, 425, 429})
SERVER_FAULTS: Final = range(500, 600)
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 20.0
LONGEST_ASKED_S: Final = 86_400.0  # beyond the time of any call
SECONDS: Final = re.compile(r"[0-9]+(\.[0-9]+)?")  # whole ones by RFC 9110; services send fractions too


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
        jitter_s = full_jitter_s(sent)
        pause_s = jitter_s if retry_after_s is None else retry_after_s + jitter_s / 4
        return None if sent >= self.count or pause_s >= self.left_s else pause_s


def full_jitter_s(sent: int) -> float:
    """Return a random pause after *sent* attempts, up to a bound that doubles with each."""
    bound_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (sent - 1))
    return random.uniform(0, bound_s)  # noqa: S311  not for secrets


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return how many seconds `Retry-After` asks to wait, from 0 to a day, or None if it does not say."""
    told = headers.get("retry-after", "").strip()
    try:
        asked_s = float(told) if SECONDS.fullmatch(told) else _until_s(told, headers.get("date", ""))
    except (OverflowError, TypeError, ValueError):
        return None
    return min(max(0.0, asked_s), LONGEST_ASKED_S)


def _until_s(date: str, now: str) -> float:
    return (parsedate_to_datetime(date) - parsedate_to_datetime(now)).total_seconds()


def may_pass(status: int) -> bool:
    """Return whether an HTTP *status* says that the next attempt may fare better."""
    return status in AGAIN or status in SERVER_FAULTS
