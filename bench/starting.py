"""From the start of a process to its first result, against the documented way and a bare `import torch`.

A job waits in the queue before the worker starts, as on a platform that scales from nothing. The parties take
turns; files are in the page cache for all of them, since each has been started once before.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from bench.figures import ratio, spread
from bench.model import ROOT
from bench.report import Measure
from bench.serving import documented, first_result_s, ours


if TYPE_CHECKING:
    from bench.plan import Plan
    from bench.report import Row

VS_DOCUMENTED: Final = Measure(
    "cold_start_vs_documented", "process start to first result against the documented way", "×", 0.30
)
VS_IMPORT: Final = Measure(
    "cold_start_vs_import_torch", "process start to first result against a bare `import torch`", "×", 1.2
)
MEASURES: Final = (VS_DOCUMENTED, VS_IMPORT)


def measure(plan: Plan) -> list[Row]:
    """Start every party by turns; return the rows that *plan* wants."""
    took: dict[str, list[float]] = {"ours": [], "torch": [], "documented": []}
    log = ""
    for number in range(plan.lengths.starts + 1):
        plan.say(
            f"  start {number} of {plan.lengths.starts}" if number else "  a start of each, to warm caches"
        )
        ours_s, log = first_result_s(ours(plan.folder), plan.bodies[0])
        took["ours"].append(ours_s)
        took["torch"].append(import_torch_s())
        if plan.wants(VS_DOCUMENTED.name):
            took["documented"].append(first_result_s(documented(plan.folder), plan.bodies[0])[0])
    took = {party: each[1:] for party, each in took.items()}
    phases = " ".join(line for line in log.splitlines() if line.startswith("start "))
    rows = []
    if plan.wants(VS_DOCUMENTED.name):
        told = f"{spread(took['ours'], '.2f')} / {spread(took['documented'], '.2f')} s"
        rows.append(VS_DOCUMENTED.row(ratio(took["ours"], took["documented"]), told))
    if plan.wants(VS_IMPORT.name):
        told = f"{spread(took['ours'], '.2f')} / {spread(took['torch'], '.2f')} s; {' '.join(phases.split())}"
        rows.append(VS_IMPORT.row(ratio(took["ours"], took["torch"]), told))
    return rows


def import_torch_s() -> float:
    """Return the seconds of a process that imports torch and ends."""
    started_s = time.monotonic()
    subprocess.run([sys.executable, "-c", "import torch"], cwd=ROOT, check=True)
    return time.monotonic() - started_s
