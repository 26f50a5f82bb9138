"""When a job in the queue should be done: by its number, and when those sent before it were.

A question costs a core 1.5 ms, and a job of a long queue that is asked after as a lone one is, every two
seconds, is asked five times. Jobs end about in the order in which they were sent, so that a line through the
ends of the last ones tells when a later one should be done. Those ends are the platform's (`delayTime` and
`executionTime`), not when they were heard of: a job that was asked late would delay the next question too.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import linear_regression, pstdev
from typing import TYPE_CHECKING, Any, Final


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

LATELY: Final = 64  # ends that the line goes through
LEAST: Final = 4  # before which there is none
LONGEST_S: Final = 30.0


@dataclass(slots=True)
class Line:
    """Jobs by the order in which they were sent; *clock* tells seconds."""

    clock: Callable[[], float] = time.monotonic
    _sent: int = 0
    _ends: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=LATELY))

    def join(self) -> Place:
        """Return the place of a job that was sent just now."""
        self._sent += 1
        return Place(self, self._sent, self.clock())

    def end(self, number: int, at_s: float) -> None:
        """Keep when a job ended."""
        self._ends.append((number, at_s))

    def due(self, number: int) -> tuple[float, float] | None:
        """Return in how many seconds a job should be done, and how far off that may be; None if unknown."""
        if len(self._ends) < LEAST:
            return None
        slope_s, first_s = linear_regression(*zip(*self._ends, strict=True))
        off_s = pstdev(at_s - first_s - slope_s * ended for ended, at_s in self._ends)
        return first_s + slope_s * number - self.clock(), max(slope_s, off_s)


@dataclass(frozen=True, slots=True)
class Place:
    """The place of one job in *line*."""

    line: Line
    number: int
    sent_s: float

    def pauses_s(self, usual_s: Iterator[float]) -> Iterator[float]:
        """Yield how long to wait before each question; never shorter than a lone job's *usual_s*."""
        for pause_s in usual_s:
            due = self.line.due(self.number)
            yield pause_s if due is None else min(LONGEST_S, max(pause_s, *due))

    def leave(self, standing: Mapping[str, Any]) -> None:
        """Learn from how the job has ended, if the platform says how long it took."""
        with suppress(KeyError, TypeError):
            took_ms = standing["delayTime"] + standing["executionTime"]
            self.line.end(self.number, self.sent_s + took_ms / 1e3)
