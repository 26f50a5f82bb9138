"""A moment by which something must be over, whatever it waits for on the way."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock, passed down through everything that waits."""

    at_s: float

    @classmethod
    def after(cls, timeout_s: float) -> Deadline:
        """Return the deadline *timeout_s* from now."""
        return cls(time.monotonic() + timeout_s)

    def remaining_s(self) -> float:
        """Return the seconds left, negative once it has passed."""
        return self.at_s - time.monotonic()

    def clip_s(self, timeout_s: float) -> float:
        """Return the shorter of *timeout_s* and what is left; raises TimeoutError if nothing is."""
        remaining_s = self.remaining_s()
        if remaining_s <= 0:
            raise TimeoutError
        return min(timeout_s, remaining_s)
