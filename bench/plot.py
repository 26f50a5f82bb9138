"""The plot of BENCHMARKS.md: jobs a second of every party of one run."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure


if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def write_throughput(file: Path, jobs_per_s: Mapping[str, Sequence[float]], title: str) -> None:
    """Write horizontal bars, the medians of each party's rounds with their range, as SVG."""
    parties = sorted(jobs_per_s, key=lambda party: median(jobs_per_s[party]))
    medians = [median(jobs_per_s[party]) for party in parties]
    below = [middle - min(jobs_per_s[party]) for party, middle in zip(parties, medians, strict=True)]
    above = [max(jobs_per_s[party]) - middle for party, middle in zip(parties, medians, strict=True)]
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text: smaller, and searchable
    mpl.rcParams["svg.hashsalt"] = "bench"  # equal figures give equal files
    figure = Figure(figsize=(7, 0.55 * len(parties) + 1.1), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(parties, medians, xerr=[below, above], height=0.6, color="#4878a8")
    axes.bar_label(bars, [f"{middle:.3g}" for middle in medians], padding=6)
    axes.set_xlabel("jobs or images a second")
    axes.set_title(title, fontsize=9)
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, format="svg", metadata={"Date": None})
