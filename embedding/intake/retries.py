"""When a download is tried again: after what, after how long, and how often in the whole process.

Full jitter, doubling up to a cap, and a server's own wish where it is modest. Retries are paid from one
bucket that all downloads share and only successes fill: when everything fails they soon end, instead of
tripling the load on whoever suffers already. Numbers: `FetchLimits`.
"""

from __future__ import annotations

import math
import random
import re
import threading
from typing import TYPE_CHECKING, Final

from embedding.errors import DownloadError


if TYPE_CHECKING:
    from embedding.intake.limits import FetchLimits

_SECONDS: Final = re.compile(r"[0-9]{1,9}")


class Busy(DownloadError):
    """The server asks to come back later; `retry_after_s` is 0 where it does not say when."""

    def __init__(self, message: str, retry_after: str) -> None:
        """Take the header *retry_after* as it came; a date, or nonsense, counts as none."""
        super().__init__(message, retryable=True)
        self.retry_after_s = float(retry_after) if _SECONDS.fullmatch(retry_after) else 0.0


class RetryBudget:
    """A bucket of tokens, full at first; safe to share between threads."""

    def __init__(self, limits: FetchLimits) -> None:
        self._limits = limits
        self._tokens = limits.retry_tokens
        self._lock = threading.Lock()

    def spend(self) -> bool:
        """Pay for one retry; return whether there was enough."""
        with self._lock:
            if self._tokens < self._limits.retry_cost:
                return False
            self._tokens -= self._limits.retry_cost
            return True

    def earn(self) -> None:
        """Add the token of one success, unless the bucket is full."""
        with self._lock:
            self._tokens = min(self._tokens + 1, self._limits.retry_tokens)


def pause_s(failure: DownloadError, attempt: int, limits: FetchLimits) -> float:
    """Return how long to wait after *attempt*, from 1; infinite if the server asks for too much."""
    longest_s = min(limits.backoff_cap_s, limits.backoff_base_s * 2 ** (attempt - 1))
    backoff_s = random.uniform(0, longest_s)  # noqa: S311  jitter
    retry_after_s = failure.retry_after_s if isinstance(failure, Busy) else 0.0
    return max(backoff_s, retry_after_s) if retry_after_s <= limits.max_retry_after_s else math.inf
