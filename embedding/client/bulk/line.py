"""When a job in the queue should be done: by its number, and when those sent before it were.

A question is a request of its own, and a job of a long queue that is asked after as a lone one is, every two
seconds, is mostly asked in vain. Jobs end about in the order in which they were sent, so that a line through
the ends of the last ones tells when a later one should be done. Those ends are the platform's, by its
`delayTime` and `executionTime`, not when they were heard of: a job asked late would delay the next question.
Whoever waits looks at the line again meanwhile, since jobs that end sooner or later than before move it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import fmean, linear_regression
from typing import TYPE_CHECKING, Any, Final


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

LATELY: Final = 16  # ends that the line goes through
LEAST: Final = 4  # before which there is none
LONGEST_S: Final = 30.0  # without a question
LATE_SHARE: Final = 0.5  # of how far off the line may be: a question too early costs more than a short wait
LOOK_S: Final = 0.5  # at the line again, at the soonest
LOOK_SHARE: Final = 0.25  # of what is left to wait, after which to look again


@dataclass(frozen=True, slots=True)
class Fit:
    """The line: job number N ends at *first_s* + N *slope_s*, give or take *off_s*."""

    first_s: float
    slope_s: float
    off_s: float


@dataclass(slots=True)
class Line:
    """Jobs by the order in which they were sent; *clock* tells seconds, *sleep* waits for them to pass."""

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    fit: Fit | None = None  # None while too few jobs have ended
    _sent: int = 0
    _ends: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=LATELY))

    def join(self, usual_s: Iterator[float]) -> Place:
        """Return the place of a job that was sent just now; *usual_s* are a lone job's pauses."""
        self._sent += 1
        return Place(self, self._sent, self.clock(), usual_s)

    def end(self, number: int, at_s: float) -> None:
        """Learn when a job ended."""
        self._ends.append((number, at_s))
        if len(self._ends) >= LEAST:
            slope_s, first_s = linear_regression(*zip(*self._ends, strict=True))
            off_s = math.sqrt(fmean((at_s - first_s - slope_s * number) ** 2 for number, at_s in self._ends))
            self.fit = Fit(first_s, slope_s, max(slope_s, off_s))


@dataclass(slots=True)
class Place:
    """The place of one job in *line*, sent at *sent_s*."""

    line: Line
    number: int
    sent_s: float
    usual_s: Iterator[float]
    _asked_s: float | None = None

    async def pause(self) -> None:
        """Wait until the job is worth a question; never shorter than a lone job would."""
        began_s = self.line.clock()
        usual_s = began_s + next(self.usual_s)
        while (left_s := self._due_s(began_s, usual_s) - self.line.clock()) > 0:
            await self.line.sleep(min(left_s, max(LOOK_S, LOOK_SHARE * left_s)))
        self._asked_s = self.line.clock()

    def over(self, standing: Mapping[str, Any]) -> None:
        """Learn from how the job has ended, if the platform says how long it took; not after now."""
        with suppress(KeyError, TypeError):
            took_s = (standing["delayTime"] + standing["executionTime"]) / 1e3
            self.line.end(self.number, min(self.sent_s + max(0.0, took_s), self.line.clock()))

    def _due_s(self, began_s: float, usual_s: float) -> float:
        fit = self.line.fit
        if fit is None:
            return usual_s
        due_s = fit.first_s + fit.slope_s * self.number + LATE_SHARE * fit.off_s
        if self._asked_s is not None:
            due_s = max(due_s, self._asked_s + fit.off_s)
        return max(usual_s, min(due_s, began_s + LONGEST_S))
