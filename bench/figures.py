"""The arithmetic of the figures: percentiles, rates, ratios, and turns."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING, Final

import numpy as np


if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WARM_UPS: Final = 3


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the *percent*-th percentile of *values*, between two of them by their distance."""
    return float(np.percentile(values, percent))


def rate(ended_s: Sequence[float]) -> float:
    """Return how many events a second *ended_s* hold: the slope of their count over time.

    Jobs that share a forward end together. Counting from the first to the last of them would count a batch
    too many; the slope through all of them does not.
    """
    times = np.sort(np.asarray(ended_s, dtype=np.float64))
    if len(times) < 2 or times[-1] == times[0]:  # noqa: PLR2004  a slope needs two points
        raise ValueError(f"{len(times)} jobs ended in the time measured; a rate needs more")
    slope = np.polyfit(times - times[0], np.arange(len(times)), 1)[0]
    return float(slope)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the ratio of the medians of two series of rounds."""
    return median(ours) / median(theirs)


def spread(values: Sequence[float], form: str = ".1f") -> str:
    """Return the rounds' values as one reads them: `75.1 74.0 76.2`."""
    return " ".join(format(value, form) for value in values)


def alternate_ms(calls: dict[str, Callable[[], object]], *, seconds: float) -> dict[str, float]:
    """Run *calls* in turn for *seconds* in all; return the median milliseconds of each."""
    for call in list(calls.values()) * WARM_UPS:
        call()
    took_ms: dict[str, list[float]] = {name: [] for name in calls}
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        for name, call in calls.items():
            started_s = time.perf_counter()
            call()
            took_ms[name].append((time.perf_counter() - started_s) * 1e3)
    return {name: median(each) for name, each in took_ms.items()}
