"""What embedding a number of images costs: arithmetic on a measured speed and a price that is given.

Prices change by the week and by the account, so none is kept here. The speed is one worker's: BENCHMARKS.md
says how to measure it. Starts and idle time are not in it: they depend on how the work comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from deploy.errors import DeployError


S_PER_HOUR: Final = 3600


@dataclass(frozen=True, slots=True)
class Cost:
    """GPU time and money for *images*, and how long *workers* together take. Money has the price's unit."""

    images: int
    images_per_s: float
    low_per_hour: float
    high_per_hour: float
    workers: int = 1

    def __post_init__(self) -> None:
        if self.images < 1 or self.workers < 1:
            raise DeployError("--images and --workers must be 1 or more")
        if not 0 < self.images_per_s < float("inf"):
            raise DeployError("--images-per-second must be more than 0")
        if not 0 <= self.low_per_hour <= self.high_per_hour < float("inf"):
            raise DeployError("--price-per-hour must be LOW or LOW-HIGH, LOW not above HIGH")

    @property
    def gpu_s(self) -> float:
        """Seconds of one GPU worker, however many there are."""
        return self.images / self.images_per_s

    @property
    def wall_s(self) -> float:
        """Seconds until the last image is done."""
        return self.gpu_s / self.workers

    def money(self) -> tuple[float, float]:
        """Return the lowest and the highest price."""
        hours = self.gpu_s / S_PER_HOUR
        return hours * self.low_per_hour, hours * self.high_per_hour

    def lines(self) -> list[str]:
        """Return the reckoning in words."""
        low, high = self.money()
        money = f"{low:,.2f}" if low == high else f"{low:,.2f} to {high:,.2f}"
        per_hour = f"{self.low_per_hour:g}" + (f" to {self.high_per_hour:g}" if low != high else "")
        return [
            f"images      {self.images:,} at {self.images_per_s:g} a second and worker",
            f"GPU time    {self.gpu_s:,.0f} s, {self.gpu_s / S_PER_HOUR:,.2f} hours",
            f"wall clock  {self.wall_s / S_PER_HOUR:,.2f} hours with {self.workers} worker(s)",
            f"cost        {money} at {per_hour} an hour; starts and idle time come on top",
        ]


def price_range(text: str) -> tuple[float, float]:
    """Return LOW and HIGH of `LOW` or `LOW-HIGH`; raises DeployError."""
    low, dash, high = text.partition("-")
    try:
        return float(low), float(high if dash else low)
    except ValueError:
        raise DeployError(f"--price-per-hour: {text} is neither LOW nor LOW-HIGH") from None
