"""RunPod's SDK, imported without what no worker uses.

`import runpod` of version 1.12.0 takes 1.5 s. One second of it is py-cpuinfo, which measures the clock for a
line of the debugger's report; 0.1 s is paramiko, for the SSH keys of the command line. Both are left out
while it is imported, which leaves 0.3 s: the report then names no processor, and no command line runs here.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any, Final

from embedding.stand_in import stand_in


SDK_VERSION: Final = "1.12.0"  # what this module and `loop` were written and tested for


def import_sdk() -> Any:
    """Return the module `runpod`; another version than SDK_VERSION is imported as it is."""
    if metadata.version("runpod") != SDK_VERSION:
        import runpod  # noqa: PLC0415

        return runpod
    with stand_in("paramiko"), stand_in("cpuinfo", get_cpu_info=dict):
        import runpod  # noqa: PLC0415
    return runpod
