"""How large a run is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run: everything is drawn from *seed*; *timeout_s* is for the jobs, workers' starts included."""

    jobs: int = 2000
    seed: int = 1
    workers: int = 3
    callers: int = 40
    timeout_s: float = 140.0
