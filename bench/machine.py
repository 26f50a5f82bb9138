"""Which machine, which software and which state of this repository gave the figures."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Final

from bench.model import ROOT


UNKNOWN: Final = "unknown"
PACKAGES: Final = ("torch", "open-clip-torch", "runpod", "pillow", "numpy")
_BF16_FLAGS: Final[tuple[str, ...]] = ("amx_bf16", "avx512_bf16")


def describe() -> dict[str, str]:
    """Return what a reader must know to judge the figures, by name."""
    cores = len(os.sched_getaffinity(0))
    cpu = _field("/proc/cpuinfo", "model name")
    flags = _field("/proc/cpuinfo", "flags").split()
    formats = [flag for flag in _BF16_FLAGS if flag in flags] or ["no bf16"]
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in PACKAGES)
    memory_gb = int(_field("/proc/meminfo", "MemTotal").split()[0]) * 1024 / 1e9
    return {
        "CPU": f"{cpu} ({', '.join(formats)}), {cores} of {os.cpu_count()} cores used",
        "memory": f"{memory_gb:.0f} GB",
        "system": f"{platform.system()} {platform.release()}",
        "versions": f"Python {platform.python_version()}, {versions}",
        "commit": _commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def use_cores(count: int) -> None:
    """Keep this process, and all that it starts, to *count* cores; to all where there are no more."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def _commit() -> str:
    head = _git("rev-parse", "--short", "HEAD")
    changed = head != UNKNOWN and _git("status", "--porcelain", "--untracked-files=no")
    return f"{head} with changes" if changed else head


def _git(*arguments: str) -> str:
    done = subprocess.run(  # noqa: S603
        ["git", *arguments],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else UNKNOWN


def _field(file: str, key: str) -> str:
    for line in Path(file).read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return UNKNOWN
