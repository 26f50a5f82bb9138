"""Callers in the platform's own process: each sends its next job as soon as the last one has ended.

They exist for benchmarks, where platform, callers and worker share the machine: a job costs them a future and
a task's step, its body is serialised once for all, and its result is read by nobody unless it is kept.
Nothing here locks: everything runs on the platform's event loop.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .jobs import Job, Status


if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .store import JobStore


KEEP_EVERY = 61  # a prime, so that the kept ones are of all bodies
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Completion:
    """One job from end to end: the index of its body, seconds of `time.monotonic()`, and how it ended.

    `output` is None unless this job was one of those to keep.
    """

    body: int
    queued_s: float
    finished_s: float
    status: Status
    output: Any


@dataclass(frozen=True, slots=True)
class Load:
    """What callers saw: completions in the order they came, and what the platform itself took of the CPU."""

    completions: tuple[Completion, ...]
    cpu_s: float


class Callers:
    """Callers of *bodies*, JSON objects without `id`, sent in turn; *numbers* make the ids."""

    def __init__(self, store: JobStore, bodies: Sequence[bytes], numbers: Iterator[int]) -> None:
        self._store = store
        self._bodies = bodies
        self._numbers = numbers
        self._open: dict[str, Job] = {}
        self._completions: list[Completion] = []
        self._sent = 0
        self._max_jobs = math.inf

    async def run(
        self, callers: int, *, duration_s: float = DAY_S, max_jobs: float = math.inf, timeout_s: float = 60.0
    ) -> Load:
        """Let *callers* send jobs for *duration_s*, or *max_jobs* in all; return when those taken have ended.

        What is still queued when the time is over is withdrawn. Raises TimeoutError if the rest does not end
        within *timeout_s*.
        """
        started_cpu_s = time.thread_time()
        self._max_jobs = max_jobs
        over = asyncio.get_running_loop().call_later(duration_s, self._close)
        try:
            async with asyncio.timeout(duration_s + timeout_s), asyncio.TaskGroup() as group:
                for _ in range(callers):
                    group.create_task(self._call())
        finally:
            over.cancel()
        return Load(tuple(self._completions), time.thread_time() - started_cpu_s)

    async def _call(self) -> None:
        while self._sent < self._max_jobs:
            body = self._sent % len(self._bodies)
            self._sent += 1
            job = job_of_body(self._bodies[body], next(self._numbers))
            self._open[job.id] = job
            self._store.add([job])
            await self._store.wait([job])
            self._end(job, body)

    def _end(self, job: Job, body: int) -> None:
        del self._open[job.id]
        self._store.forget([job.id])
        if job.status is Status.CANCELLED:
            return
        is_kept = len(self._completions) % KEEP_EVERY == 0 or job.status is not Status.COMPLETED
        output = (job.error or job.output) if is_kept else None
        finished_s = job.finished_s or time.monotonic()
        self._completions.append(Completion(body, job.queued_s, finished_s, job.status, output))

    def _close(self) -> None:
        self._max_jobs = 0
        for job in list(self._open.values()):
            if job.status is Status.IN_QUEUE:
                self._store.stop(job, Status.CANCELLED)


def job_of_body(body: bytes, number: int) -> Job:
    """Return a job of a serialised JSON object without `id`, whose id is made of *number*."""
    job_id = f"load-{number}-u1"
    return Job(job_id, b'{"id":"%s",%s' % (job_id.encode(), body[1:]))
