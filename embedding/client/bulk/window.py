"""How many jobs are in flight: enough to keep every worker busy, few enough for the platform.

It begins small and doubles while the workers keep the queue nearly empty, and one of them is idle or all end
jobs soon after they are sent; more would only wait at a worker, and each that waits is asked after. A refusal
for too many requests halves it; what was lost so comes back by one job for each window of jobs that end.
Payloads in flight are bounded in bytes too: what an uplink of a gigabit carries in four seconds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final


if TYPE_CHECKING:
    from collections.abc import Mapping

FIRST_JOBS: Final = 32
LEAST_JOBS: Final = 4
HELD_BYTES: Final = 512 << 20
QUEUED_PER_WORKER: Final = 4  # jobs of a ready worker that should wait; the platform's usual scaler counts 4
SOON_S: Final = 1.5  # what a job should take at most, the wait included, before the window grows
CALM_S: Final = 10.0  # after a refusal; the platform counts requests over ten seconds


@dataclass(slots=True)
class Window:
    """Jobs in flight: *size* at most now, *most* ever."""

    most: int
    size: int = 0
    jobs: int = 0
    held_bytes: int = 0
    ended: int = 0
    _lost: int = field(default=0, init=False)  # by refusals
    _ended_calmly: int = field(default=0, init=False)  # since it changed
    _looked_s: float = field(default_factory=time.monotonic, init=False)
    _calm_until_s: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.size = self.size or min(FIRST_JOBS, self.most)

    def has_room(self, wire_bytes: int) -> bool:
        """Return whether one more job of *wire_bytes* may start; the first always may."""
        return self.jobs == 0 or (self.jobs < self.size and self.held_bytes + wire_bytes <= HELD_BYTES)

    def enter(self, wire_bytes: int) -> None:
        """Count a job that starts."""
        self.jobs += 1
        self.held_bytes += wire_bytes

    def leave(self, wire_bytes: int) -> None:
        """Count a job that has ended."""
        self.jobs -= 1
        self.ended += 1
        self.held_bytes -= wire_bytes
        if self._lost and time.monotonic() >= self._calm_until_s:
            self._regain()

    def look(self, health: Mapping[str, Any]) -> None:
        """Grow if *health*, the endpoint's, shows that the workers could do with more."""
        try:
            ready, idle = int(health["workers"]["ready"]), int(health["workers"].get("idle", 0))
            queued = int(health["jobs"]["inQueue"])
        except (AttributeError, KeyError, TypeError, ValueError):
            return
        now_s = time.monotonic()
        job_s = self.jobs * (now_s - self._looked_s) / max(1, self.ended)  # Little's law
        self._looked_s, self.ended = now_s, 0
        is_short = queued < QUEUED_PER_WORKER * max(1, ready) and (idle > 0 or job_s < SOON_S)
        if is_short and self.jobs >= self.size and now_s >= self._calm_until_s:
            self.size, self._lost = min(self.most, 2 * self.size), 0

    def refuse(self) -> None:
        """Shrink after a refusal for too many requests; once for all that were refused together."""
        now_s = time.monotonic()
        if now_s >= self._calm_until_s:
            before, self.size = self.size, max(min(LEAST_JOBS, self.most), self.size // 2)
            self._lost += before - self.size
            self._calm_until_s, self._ended_calmly = now_s + CALM_S, 0

    def _regain(self) -> None:
        self._ended_calmly += 1
        if self._ended_calmly >= self.size:
            self.size += 1
            self._lost -= 1
            self._ended_calmly = 0
