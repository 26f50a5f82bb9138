"""The device's threads: they run whatever all jobs have ready as batches.

No thread waits while anything waits for it: an idle engine runs a single image at once, a busy one finds a
full batch when it comes back. A forward that fails is split until the culprit is alone, so its neighbours get
their vectors; running out of device memory ends the same way, in halves. An error that leaves the device
unusable (CUDA's asserts and faults are sticky) marks the engine broken, a forward that never returns shows as
unhealthy, and either way the worker asks to be replaced.
Work whose caller has gone is dropped before it is run. The queue is bounded.

A GPU has one lane. A CPU has two, because the threads of one forward wait for each other at the end of every
operator: with decoding on the same cores that wasted a fifth of two cores. What comes alone still gets all of
up to three cores, if nothing is being decoded. The first lane loads the model.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter, deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Protocol, TypeVar

import numpy as np
import torch

from embedding.errors import InferenceError, Overloaded
from embedding.model.cores import ForwardLimit, forward_size, lane_threads


if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    _Outcome = npt.NDArray[np.float32] | InferenceError

log = logging.getLogger(__name__)

Kind = Literal["image", "text"]

MAX_FORWARD_ITEMS: Final = 64
ALONE_ITEMS: Final = 4  # so many run with all cores, if no more are coming
MAX_LANE_THREAD_ITEMS: Final = 16  # a thread, of a slow model; more are no faster, and need more memory
MAX_FORWARD_S: Final = 90.0  # less than a job's 120, so that the first to time out tells of it
MAX_WAITING_ITEMS: Final = 1024  # decoded pictures of 150 KB, so 154 MB at 224 pixels


class Encoder(Protocol):
    """The model as the engine sees it: a batch in, one row of features for each item out."""

    def embed_images(self, pixels: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """Map B pictures (S, S, 3) uint8 to features (B, D) float32."""

    def embed_texts(self, tokens: Sequence[Any]) -> npt.NDArray[np.float32]:
        """Map B tokenised texts to features (B, D) float32."""


E = TypeVar("E", bound=Encoder)


@dataclass(frozen=True, slots=True)
class Features:
    """The engine's answer to one item: features (D,) float32, and where the time went."""

    vector: npt.NDArray[np.float32]
    queue_ms: float
    inference_ms: float


@dataclass(frozen=True, slots=True)
class Tally:
    """What an engine has done since it was made.

    `forwards` counts by kind and number of items, failed ones and their halves too; `busy_s` is the time that
    each lane has spent on them.
    """

    forwards: dict[tuple[Kind, int], int]
    failed_forwards: int
    busy_s: list[float]


@dataclass(slots=True)
class _Work:
    value: Any
    future: Future[Features] = field(default_factory=Future)
    submitted_s: float = field(default_factory=time.perf_counter)


class Engine(Generic[E]):
    """Batches work from all jobs onto one device. Thread-safe; started when made.

    `loaded` is the encoder, or what loading it raised; what is submitted before waits for it.
    """

    def __init__(
        self,
        load: Callable[[], E],
        *,
        max_forward_items: int = MAX_FORWARD_ITEMS,
        slow_forward_items: int | None = None,
        max_waiting: int = MAX_WAITING_ITEMS,
        max_forward_s: float = MAX_FORWARD_S,
        cpu_threads: int = 1,
        lanes: int = 1,
    ) -> None:
        """Start the lanes, 1 or 2; the first runs *load*.

        *max_forward_items* items run in one forward at most, of a slow model *slow_forward_items* if given;
        *max_waiting* wait at most, one more is refused.
        A forward that has not returned after *max_forward_s* counts as a device that hangs.
        *cpu_threads* are torch's in all lanes together; see `leave_cpu_to_the_engine`.
        """
        self.loaded: Future[E] = Future()
        self.max_waiting = max_waiting
        self._load = load
        self._cpu_threads = cpu_threads
        self._limit = ForwardLimit(slow_forward_items or max_forward_items, max_forward_items)
        self._max_forward_s = max_forward_s
        self._waiting: dict[Kind, deque[_Work]] = {"image": deque(), "text": deque()}
        self._changed = threading.Condition()
        self._closed = False
        self._broken = False
        self.coming = 0  # items being decoded, which will want the engine and now want the cores
        self._running: dict[int, float] = {}  # lanes, and when their forwards began
        self._has_all_cores = False
        self._forwards: Counter[tuple[Kind, int]] = Counter()
        self._failed_forwards = 0
        self._busy_s = [0.0] * lanes
        self._threads = [
            threading.Thread(target=self._run, args=(lane,), name=f"device-{lane}", daemon=True)
            for lane in range(lanes)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, kind: Kind, value: Any) -> Future[Features]:
        """Queue one picture (S, S, 3) uint8 or one tokenised text; cancel the future to drop it.

        The future raises InferenceError if the forward fails for this item. Raises Overloaded when
        *max_waiting* items wait already.
        """
        work = _Work(value)
        with self._changed:
            if self.depth() >= self.max_waiting:
                self._drop_cancelled()
            if self._closed or self.depth() >= self.max_waiting:
                raise Overloaded(f"{self.max_waiting} items are waiting already; try again later")
            self._waiting[kind].append(work)
            self._changed.notify_all()
        return work.future

    def depth(self) -> int:
        """Return how many items wait."""
        return sum(map(len, self._waiting.values()))

    def tally(self) -> Tally:
        """Return what the engine has done, with the time of what runs now."""
        with self._changed:
            now_s = time.monotonic()
            busy_s = [done + now_s - self._running.get(lane, now_s) for lane, done in enumerate(self._busy_s)]
            return Tally(dict(self._forwards), self._failed_forwards, busy_s)

    def is_healthy(self) -> bool:
        """Return whether every lane runs, and the device has neither failed for good nor hangs."""
        began_s = min(self._running.copy().values(), default=math.inf)
        hangs = time.monotonic() - began_s > self._max_forward_s
        return not (self._broken or hangs) and all(thread.is_alive() for thread in self._threads)

    def close(self) -> None:
        """Run what waits, then stop the lanes. Blocks until they have."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self, lane: int) -> None:
        if lane == 0:
            torch.set_num_threads(lane_threads(0, self._cpu_threads, alone=True))
            try:
                self.loaded.set_result(self._load())
            except BaseException as fault:  # noqa: BLE001  it is raised where the encoder is asked for
                self.loaded.set_exception(fault)
        if self.loaded.exception() is not None:
            return
        threads_set = 0
        while work := self._next(lane):
            kind, batch, threads = work
            if threads != threads_set:
                torch.set_num_threads(threads)
                threads_set = threads
            live = [work for work in batch if work.future.set_running_or_notify_cancel()]
            if live:
                self._run_batch(kind, live)
            with self._changed:
                self._busy_s[lane] += time.monotonic() - self._running.pop(lane)
                self._has_all_cores = False
                self._changed.notify_all()

    def _next(self, lane: int) -> tuple[Kind, list[_Work], int] | None:
        """Wait for work; return a batch and how many threads may run it, `None` at the end.

        The second lane takes none while the first is idle or has all cores.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or (self.depth() > 0 and self._may_run(lane)))
            if self.depth() == 0:
                return None
            alone = not self._running and self.depth() <= ALONE_ITEMS and self.coming == 0
            threads = lane_threads(lane, self._cpu_threads, alone=alone)
            self._has_all_cores |= threads > lane_threads(lane, self._cpu_threads, alone=False)
            kind, batch = self._take()
            self._running[lane] = time.monotonic()
            self._changed.notify_all()
            return kind, batch, threads

    def _may_run(self, lane: int) -> bool:
        return lane == 0 or (0 in self._running and not self._has_all_cores)

    def _take(self) -> tuple[Kind, list[_Work]]:
        """Take a batch of the kind whose first item has waited longest, oldest first."""
        kinds = [kind for kind, queue in self._waiting.items() if queue]
        kind = min(kinds, key=lambda kind: self._waiting[kind][0].submitted_s)
        queue = self._waiting[kind]
        idle_lanes = len(self._threads) - len(self._running)
        size = forward_size(len(queue), self._limit.of(kind), idle_lanes=idle_lanes)
        return kind, [queue.popleft() for _ in range(size)]

    def _drop_cancelled(self) -> None:
        for kind, queue in self._waiting.items():
            self._waiting[kind] = deque(work for work in queue if not work.future.cancelled())

    def _run_batch(self, kind: Kind, batch: list[_Work]) -> None:
        started_s = time.perf_counter()
        outcomes = self._try(kind, batch)
        if outcomes is None:
            middle = len(batch) // 2
            self._run_batch(kind, batch[:middle])
            self._run_batch(kind, batch[middle:])
            return
        inference_ms = (time.perf_counter() - started_s) * 1e3
        with self._changed:
            self._limit.learn(kind, len(batch), inference_ms / 1e3)
        for work, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, InferenceError):
                work.future.set_exception(outcome)
            else:
                queue_ms = (started_s - work.submitted_s) * 1e3
                work.future.set_result(Features(outcome, queue_ms, inference_ms))

    def _try(self, kind: Kind, batch: list[_Work]) -> list[_Outcome] | None:
        """Return each item's features or error; `None` if the batch failed and its halves may not.

        Nothing of the failed forward outlives this call, so the halves have its memory.
        """
        with self._changed:
            self._forwards[kind, len(batch)] += 1
        encoder = self.loaded.result()
        encode = encoder.embed_images if kind == "image" else encoder.embed_texts
        try:
            rows = encode([work.value for work in batch])
            return [_outcome(row) for _, row in zip(batch, rows, strict=True)]
        except Exception as fault:
            with self._changed:
                self._failed_forwards += 1
            self._broken |= isinstance(fault, torch.AcceleratorError)
            if len(batch) > 1 and not self._broken:
                log.warning(
                    "a forward of %d failed (%s); running its halves", len(batch), type(fault).__name__
                )
                return None
            log.exception("the forward failed for %d %s", len(batch), kind)
        return [InferenceError("the forward pass failed for this item") for _ in batch]


def start_engine(load: Callable[[], E], *, device: str, cpu_threads: int) -> Engine[E]:
    """Return an engine for *device*, which loads its encoder; *cpu_threads* are what torch may use."""
    if device != "cpu":
        return Engine(load)
    lanes = min(2, cpu_threads)
    return Engine(
        load,
        slow_forward_items=min(MAX_LANE_THREAD_ITEMS * max(cpu_threads // 2, 1), MAX_FORWARD_ITEMS),
        cpu_threads=cpu_threads,
        lanes=lanes,
    )


def _outcome(row: npt.NDArray[np.float32]) -> _Outcome:
    if np.isfinite(row).all() and row.any():
        return row
    return InferenceError("the model gave no finite vector for this item")
