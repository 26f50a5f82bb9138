"""What one run measures, on what, and for how long."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from typing import TYPE_CHECKING, Final

from bench import inputs, model


if TYPE_CHECKING:
    from pathlib import Path

    from bench.model import Vectors

CALLERS: Final = 64


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long each part takes, in seconds, and how often it is repeated."""

    rounds: int = 3
    warm_up_s: float = 4.0
    load_s: float = 12.0
    documented_s: float = 15.0
    single_s: float = 5.0
    ceiling_s: float = 14.0
    starts: int = 5
    free_s: float = 5.0
    crowd_s: float = 60.0
    soak_jobs: int = 10_000
    bulk_rows: int = 3_000
    search_rows: int = 1_000_000
    url_jobs: int = 20
    routes_s: float = 1.5


QUICK: Final = Lengths(
    rounds=1,
    warm_up_s=1.5,
    load_s=4.0,
    documented_s=6.0,
    single_s=2.0,
    ceiling_s=5.0,
    starts=1,
    free_s=2.0,
    crowd_s=6.0,
    soak_jobs=500,
    bulk_rows=300,
    search_rows=20_000,
    url_jobs=5,
    routes_s=0.4,
)


@dataclass
class Plan:
    """The parties' model and inputs, made when first asked for, and what has been measured of them so far."""

    wanted: frozenset[str]
    lengths: Lengths
    peer: str | None = None
    chosen_folder: Path | None = None
    ceilings: list[dict[str, float]] = field(default_factory=list)
    jobs_per_s: dict[str, list[float]] = field(default_factory=dict)

    @cached_property
    def folder(self) -> Path:
        """The folder of the shared model."""
        return self.chosen_folder or model.model_folder(self.say)

    @cached_property
    def pictures(self) -> tuple[bytes, ...]:
        """The pictures that callers send, as JPEG files."""
        return inputs.jpegs()

    @cached_property
    def bodies(self) -> tuple[bytes, ...]:
        """A job for each picture, serialised."""
        return inputs.image_jobs(self.pictures)

    @cached_property
    def references(self) -> Vectors:
        """What open_clip makes of each picture, (N, D)."""
        return model.references(self.folder, self.pictures, self.say)

    def wants(self, *names: str) -> bool:
        """Return whether one of *names* is to be measured."""
        return not self.wanted.isdisjoint(names)

    def measure_ceiling(self) -> dict[str, float]:
        """Run the bare forwards once more; return their medians in milliseconds, by name."""
        self.say("  the bare forwards")
        seconds = str(self.lengths.ceiling_s)
        told = model.run_python("-m", "bench.ceiling", str(self.folder), "--seconds", seconds)
        self.ceilings.append(json.loads(told))
        return self.ceilings[-1]

    def forward_ms(self, name: str) -> list[float]:
        """Return the milliseconds of a bare forward in all rounds so far; at least in one."""
        if not self.ceilings:
            self.measure_ceiling()
        return [round_[name] for round_ in self.ceilings]

    def forward_median_ms(self, name: str) -> float:
        """Return the median of `forward_ms`."""
        return median(self.forward_ms(name))

    def note(self, party: str, jobs_per_s: float) -> None:
        """Keep a round's jobs a second of *party*, for the plot and the JSON."""
        self.jobs_per_s.setdefault(party, []).append(jobs_per_s)

    def say(self, text: str) -> None:
        """Tell on stderr what happens now."""
        print(text, file=sys.stderr, flush=True)
