"""How the engine's lanes share the cores of a CPU, and how large their batches are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import torch


CPU_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")  # "QUOTA PERIOD" in microseconds
FORWARD_STEP: Final = 8
QUICK_FORWARD_S: Final = 0.15  # so long may what has just come wait for a forward of a small model
RECENT_SHARE: Final = 0.2  # of the last forward, in how long they take


def leave_cpu_to_the_engine() -> int:
    """Keep the calling thread's torch to itself; return how many threads the engine may use.

    OpenMP makes a pool for each thread that runs parallel work. Once the pools together have more threads
    than there are cores, idle ones sleep instead of spinning, and every operator waits for them to wake:
    21 ms instead of 11 for a text on ViT-B/32 and 2 cores.
    """
    threads = min(torch.get_num_threads(), _quota_cores())
    torch.set_num_threads(1)
    return threads


def _quota_cores() -> int:
    """Return how many cores a container may use; torch counts those of its host."""
    try:
        quota, period = CPU_QUOTA.read_text(encoding="ascii").split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError):  # no such file, or "max"
        return os.cpu_count() or 1


def lane_threads(lane: int, cpu_threads: int, *, alone: bool) -> int:
    """Return torch's threads for a forward on *lane* 0 or 1: *alone*, or beside the other's and decoding.

    The second lane has half of them, the first the rest. Of up to three the first has all while it is alone:
    there the second needs no pool of its own, so the pools together are never larger than the machine.
    """
    half = cpu_threads // 2
    if lane > 0:
        return max(half, 1)
    return cpu_threads if alone and half <= 1 else cpu_threads - half


class ForwardLimit:
    """How many items run in one forward: *slow_items*, and up to *most_items* where those are quick.

    Every operator gives up the interpreter lock, and waits to have it again. A large model works far longer
    than it waits; the demo model made a seventh more vectors a second in forwards of 64 than of 16.
    """

    def __init__(self, slow_items: int, most_items: int) -> None:
        self._slow_items, self._most_items = slow_items, most_items
        self._item_s: dict[str, float] = {}

    def of(self, kind: str) -> int:
        """Return how many items of *kind* the next forward may have."""
        if kind not in self._item_s:
            return self._slow_items
        return min(max(self._slow_items, int(QUICK_FORWARD_S / self._item_s[kind])), self._most_items)

    def learn(self, kind: str, items: int, took_s: float) -> None:
        """Take note of a forward; of one with few items, what it costs beside them would tell too much."""
        if items >= FORWARD_STEP:
            item_s = took_s / items
            before_s = self._item_s.get(kind, item_s)
            self._item_s[kind] = before_s + RECENT_SHARE * (item_s - before_s)


def forward_size(waiting: int, max_forward_items: int, *, idle_lanes: int = 1) -> int:
    """Return how many of *waiting* items run next: up to FORWARD_STEP, all; above, a multiple of it.

    Idle lanes share. Sizes are few because oneDNN compiles kernels for each new one, and keeps them.
    """
    if waiting <= FORWARD_STEP:
        return min(waiting, max_forward_items)
    share = min(-(-waiting // idle_lanes), max_forward_items)
    return max(share - share % FORWARD_STEP, min(FORWARD_STEP, max_forward_items))
