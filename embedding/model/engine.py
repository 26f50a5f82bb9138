"""One thread that owns the device and runs whatever all jobs have ready as one batch.

The thread never waits while anything waits for it: an idle engine runs a single image at once, a busy one
finds a full batch when it comes back. A forward that fails is split until the culprit is alone, so its
neighbours get their vectors; running out of device memory ends the same way, in halves. An error that
leaves the device unusable (CUDA's asserts and faults are sticky) marks the engine broken, and the worker
asks to be replaced. Work whose caller has gone is dropped before it is run. The queue is bounded.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch

from embedding.errors import InferenceError, Overloaded


if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    _Outcome = npt.NDArray[np.float32] | InferenceError

log = logging.getLogger(__name__)

Kind = Literal["image", "text"]


def leave_cpu_to_the_engine() -> int:
    """Keep the calling thread's torch to itself; return how many threads the engine may use.

    OpenMP makes a pool for each thread that runs parallel work. Once the pools together have more threads
    than there are cores, idle ones sleep instead of spinning, and every operator waits for them to wake:
    21 ms instead of 11 for a text on ViT-B/32 and 2 cores.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    return threads


class Encoder(Protocol):
    """The model as the engine sees it: a batch in, one row of features for each item out."""

    def embed_images(self, pixels: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """Map B pictures (S, S, 3) uint8 to features (B, D) float32."""

    def embed_texts(self, tokens: Sequence[Any]) -> npt.NDArray[np.float32]:
        """Map B tokenised texts to features (B, D) float32."""


@dataclass(frozen=True, slots=True)
class Features:
    """The engine's answer to one item: features (D,) float32, and where the time went."""

    vector: npt.NDArray[np.float32]
    queue_ms: float
    inference_ms: float


@dataclass(slots=True)
class _Work:
    value: Any
    future: Future[Features] = field(default_factory=Future)
    submitted_s: float = field(default_factory=time.perf_counter)


class Engine:
    """Batches work from all jobs onto one device. Thread-safe; started when made."""

    def __init__(
        self, encoder: Encoder, *, max_batch_size: int, max_waiting: int, cpu_threads: int = 1
    ) -> None:
        """Start the device thread.

        *max_batch_size* items run in one forward at most; *max_waiting* wait at most, one more is refused.
        *cpu_threads* are torch's in the device thread; see `leave_cpu_to_the_engine`.
        """
        self.max_waiting = max_waiting
        self._encoder = encoder
        self._cpu_threads = cpu_threads
        self._max_batch_size = max_batch_size
        self._waiting: dict[Kind, deque[_Work]] = {"image": deque(), "text": deque()}
        self._changed = threading.Condition()
        self._closed = False
        self._broken = False
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._thread.start()

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
            self._changed.notify()
        return work.future

    def depth(self) -> int:
        """Return how many items wait."""
        return sum(map(len, self._waiting.values()))

    def is_healthy(self) -> bool:
        """Return whether the device thread runs and its device has not failed for good."""
        return self._thread.is_alive() and not self._broken

    def close(self) -> None:
        """Run what waits, then stop the thread. Blocks until it has."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        torch.set_num_threads(self._cpu_threads)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self.depth() > 0)
                if self.depth() == 0:
                    return
                kind, batch = self._take()
            live = [work for work in batch if work.future.set_running_or_notify_cancel()]
            if live:
                self._run_batch(kind, live)

    def _take(self) -> tuple[Kind, list[_Work]]:
        """Take a batch of the kind whose first item has waited longest, oldest first."""
        kinds = [kind for kind, queue in self._waiting.items() if queue]
        kind = min(kinds, key=lambda kind: self._waiting[kind][0].submitted_s)
        queue = self._waiting[kind]
        return kind, [queue.popleft() for _ in range(min(len(queue), self._max_batch_size))]

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
        encode = self._encoder.embed_images if kind == "image" else self._encoder.embed_texts
        try:
            rows = encode([work.value for work in batch])
            return [_outcome(row) for _, row in zip(batch, rows, strict=True)]
        except Exception as fault:
            self._broken |= isinstance(fault, torch.AcceleratorError)
            if len(batch) > 1 and not self._broken:
                log.warning(
                    "a forward of %d failed (%s); running its halves", len(batch), type(fault).__name__
                )
                return None
            log.exception("the forward failed for %d %s", len(batch), kind)
        return [InferenceError("the forward pass failed for this item") for _ in batch]


def _outcome(row: npt.NDArray[np.float32]) -> _Outcome:
    if np.isfinite(row).all() and row.any():
        return row
    return InferenceError("the model gave no finite vector for this item")
