"""The worker on a machine of another size: `python small_machine.py CORE CPUS` runs handler.py.

It runs on core CORE alone, and believes that there are CPUS of them, which is what sizes its pools.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path


HANDLER = Path(__file__).parents[2] / "handler.py"

if __name__ == "__main__":
    core, cpus = map(int, sys.argv[1:3])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    os.cpu_count = lambda: cpus
    sys.argv = [str(HANDLER)]
    runpy.run_path(str(HANDLER), run_name="__main__")
