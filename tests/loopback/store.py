"""The queue and the life of its jobs: who takes what, and what a result, a cancel or a dead worker changes.

One job costs constant work from queue to result.
Nothing here locks: every method runs on the platform's event loop.
A job ends once; a later result of it is recorded and changes nothing.
Not copied from the platform, because its rules are not published: results are kept until `forget`,
jobs of a lost worker go to the end of the queue, and a purged job ends as CANCELLED.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from .jobs import Job, Parcel, Status, Take, WorkerState
from .polls import HeldPolls


if TYPE_CHECKING:
    from collections.abc import Iterable

    from .faults import Fault, Faults


class JobStore:
    """All jobs and workers of one endpoint."""

    def __init__(self, faults: Faults) -> None:
        self.jobs: dict[str, Job] = {}
        self.workers: dict[str, WorkerState] = {}
        self.retried = 0
        self._counts: Counter[Status] = Counter()
        self._faults = faults
        self._queue: deque[Parcel] = deque()
        self._polls = HeldPolls()

    def add(self, jobs: Iterable[Job]) -> None:
        """Queue new jobs."""
        for job in jobs:
            self.jobs[job.id] = job
            self._counts[job.status] += 1
            job.ttl_timer = self._timer(job, job.ttl_s)
            self._queue_job(job)

    def enqueue(self, parcel: Parcel) -> None:
        """Put a delivery at the end of the queue and wake one poll; it is made whatever its job's state."""
        self._queue.append(parcel)
        self._polls.wake()

    def wake(self, count: int) -> None:
        """Let *count* held job-takes look again, for faults armed meanwhile."""
        self._polls.wake(count)

    def enrol(self, worker_id: str) -> WorkerState:
        """Register a worker that is about to start; one of the same id that is gone is replaced."""
        self.workers[worker_id] = WorkerState(worker_id)
        return self.workers[worker_id]

    def worker(self, worker_id: str) -> WorkerState:
        """Return the worker of that id; one that merely shows up is registered."""
        return self.workers.get(worker_id) or self.enrol(worker_id)

    async def take(self, worker_id: str, max_jobs: int, hold_s: float) -> Fault | list[bytes]:
        """Return up to *max_jobs* documents, a fault to answer with, or nothing after *hold_s* seconds."""
        worker = self.worker(worker_id)
        worker.has_polled = True
        worker.settled.set()
        return await self._polls.hold(lambda: self._next_answer(worker, max_jobs), hold_s) or []

    def _next_answer(self, worker: WorkerState, max_jobs: int) -> Fault | list[bytes] | None:
        if worker.is_gone:
            self._polls.wake()
            return []
        if fault := self._faults.next("job-take"):
            return fault
        documents: list[bytes] = []
        while self._queue and len(documents) < max_jobs:
            parcel = self._queue.popleft()
            if not parcel.is_withdrawn:
                documents.append(parcel.document)
                self._hand_over(parcel, worker)
        return documents or None

    def _hand_over(self, parcel: Parcel, worker: WorkerState) -> None:
        job = parcel.job
        if job is None:
            return
        take = Take(worker.id, time.monotonic())
        job.takes.append(take)
        worker.holding[job.id] = job
        if job.status is Status.IN_QUEUE:
            self._move(job, Status.IN_PROGRESS)
            job.started_s = take.at_s
            job.run_timer = self._timer(job, job.execution_timeout_s)

    async def stops(self, worker_id: str, hold_s: float) -> list[str]:
        """Return the ids that the worker must stop, or nothing after *hold_s* seconds."""
        worker = self.worker(worker_id)

        def pop() -> list[str] | None:
            worker.stops, ids = [], worker.stops
            return ids or None

        return await worker.stop_polls.hold(pop, hold_s) or []

    def release(self, job: Job, worker_id: str) -> None:
        """Note that the worker no longer holds the job."""
        if worker := self.workers.get(worker_id):
            worker.holding.pop(job.id, None)

    def finish(self, job: Job, status: Status, *, output: Any = None, error: str | None = None) -> None:
        """End the job, unless it has ended: withdraw its deliveries and wake all who wait for it."""
        if job.is_final:
            return
        job.output, job.error, job.finished_s = output, error, time.monotonic()
        self._move(job, status)
        if job.parcel:
            job.parcel.is_withdrawn = True
        for timer in (job.ttl_timer, job.run_timer):
            if timer:
                timer.cancel()
        waiting, job.waiting = job.waiting, []
        for ended in waiting:
            if not ended.done():
                ended.set_result(None)

    def stop(self, job: Job, status: Status) -> None:
        """End the job as CANCELLED or TIMED_OUT and tell the workers that hold it."""
        if job.is_final:
            return
        self.finish(job, status)
        for worker_id in {take.worker_id for take in job.takes}:
            worker = self.worker(worker_id)
            if worker.holding.pop(job.id, None):
                worker.stops.append(job.id)
                worker.stop_polls.wake()

    def purge(self) -> int:
        """Cancel every job that is still queued and return how many there were."""
        queued = [parcel.job for parcel in self._queue if not parcel.is_withdrawn and parcel.job]
        waiting = [job for job in queued if job.status is Status.IN_QUEUE]
        for job in waiting:
            self.stop(job, Status.CANCELLED)
        return len(waiting)

    def retry(self, job: Job) -> bool:
        """Queue a FAILED or TIMED_OUT job again under its id; False where it is neither."""
        if job.status not in {Status.FAILED, Status.TIMED_OUT}:
            return False
        self._queue_again(job)
        return True

    def redeliver(self, worker: WorkerState) -> list[str]:
        """Queue the unfinished jobs of a worker again and return their ids; the worker is not told."""
        lost = [job for job in worker.holding.values() if not job.is_final]
        worker.holding.clear()
        for job in lost:
            self._queue_again(job)
        return [job.id for job in lost]

    def bury(self, worker: WorkerState) -> None:
        """Give nothing more to a worker whose process has ended."""
        worker.is_gone = True
        worker.settled.set()

    async def wait(self, jobs: Iterable[Job]) -> None:
        """Return when all the jobs have ended."""
        for job in jobs:
            if not job.is_final:
                ended = asyncio.get_running_loop().create_future()
                job.waiting.append(ended)
                await ended

    def forget(self, job_ids: Iterable[str]) -> None:
        """Drop jobs and their results from memory; the counts of `health` keep them."""
        for job_id in job_ids:
            del self.jobs[job_id]

    def health(self) -> dict[str, dict[str, int]]:
        """Return the counts of jobs and workers as `GET /health` gives them."""
        alive = [worker for worker in self.workers.values() if not worker.is_gone]
        ready = [worker for worker in alive if worker.has_polled]
        running = sum(bool(worker.holding) for worker in ready)
        return {
            "jobs": {
                "completed": self._counts[Status.COMPLETED],
                "failed": self._counts[Status.FAILED] + self._counts[Status.TIMED_OUT],
                "inProgress": self._counts[Status.IN_PROGRESS],
                "inQueue": self._counts[Status.IN_QUEUE],
                "retried": self.retried,
            },
            "workers": {
                "idle": len(ready) - running,
                "initializing": len(alive) - len(ready),
                "ready": len(ready),
                "running": running,
                "throttled": 0,
                "unhealthy": 0,
            },
        }

    def _queue_again(self, job: Job) -> None:
        if job.run_timer:
            job.run_timer.cancel()
        job.output, job.error, job.started_s, job.finished_s = None, None, None, None
        job.retries += 1
        self.retried += 1
        self._move(job, Status.IN_QUEUE)
        self._queue_job(job)

    def _queue_job(self, job: Job) -> None:
        job.parcel = Parcel(job.document, job)
        self.enqueue(job.parcel)

    def _move(self, job: Job, status: Status) -> None:
        self._counts[job.status] -= 1
        self._counts[status] += 1
        job.status = status

    def _timer(self, job: Job, timeout_s: float | None) -> asyncio.TimerHandle | None:
        if timeout_s is None:
            return None
        return asyncio.get_running_loop().call_later(timeout_s, self.stop, job, Status.TIMED_OUT)
