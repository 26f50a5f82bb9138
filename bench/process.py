"""What the kernel knows of a process: memory, CPU and open files, from /proc (Linux)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final


TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_USER_TICKS, _SYSTEM_TICKS = 11, 12  # fields of /proc/PID/stat after the name, from 0


def peak_rss_bytes(pid: int) -> int:
    """Return the most memory that process *pid* ever had resident."""
    return _status_bytes(pid, "VmHWM")


def rss_bytes(pid: int) -> int:
    """Return the memory that process *pid* has resident now."""
    return _status_bytes(pid, "VmRSS")


def open_files(pid: int) -> int:
    """Return how many file descriptors process *pid* has open, sockets among them."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def children(pid: int) -> list[int]:
    """Return the processes that *pid* started and that still run."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def cpu_s(pid: int) -> float:
    """Return the seconds of CPU that process *pid* has used, all its threads together."""
    after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(after_name[_USER_TICKS]) + int(after_name[_SYSTEM_TICKS])) / TICKS_PER_S


def _status_bytes(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    raise ProcessLookupError(f"process {pid} has no {key}; it may have ended")
