"""RunPod's SDK, imported without what no worker uses.

`import runpod` of version 1.12.0 takes 1.5 s. One second of it is py-cpuinfo, which measures the clock for a
line of the debugger's report; 0.1 s is paramiko, for the SSH keys of the command line. Both are left out
while it is imported, which leaves 0.3 s: the report then names no processor, and no command line runs here.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib import metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final


if TYPE_CHECKING:
    from collections.abc import Iterator

SDK_VERSION: Final = "1.12.0"  # what this module and `loop` were written and tested for


def import_sdk() -> Any:
    """Return the module `runpod`; another version than SDK_VERSION is imported as it is."""
    if metadata.version("runpod") != SDK_VERSION:
        import runpod  # noqa: PLC0415

        return runpod
    with _no_clock_measured(), _no_paramiko():
        import runpod  # noqa: PLC0415
    return runpod


@contextmanager
def _no_clock_measured() -> Iterator[None]:
    import cpuinfo  # noqa: PLC0415

    measure, cpuinfo.get_cpu_info = cpuinfo.get_cpu_info, dict  # the SDK is ready to find nothing
    try:
        yield
    finally:
        cpuinfo.get_cpu_info = measure


@contextmanager
def _no_paramiko() -> Iterator[None]:
    empty = ModuleType("paramiko")
    sys.modules.setdefault("paramiko", empty)
    try:
        yield
    finally:
        if sys.modules["paramiko"] is empty:
            del sys.modules["paramiko"]
