"""What the platform knows of a job and of a worker, and what tests are shown of it.

`Job` and `WorkerState` are the platform's own, changed on its event loop only.
`JobResult` and `JobRecord` are frozen copies of them for tests and benchmarks.
Times with the suffix `_s` are seconds of `time.monotonic()`.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from .polls import HeldPolls


if TYPE_CHECKING:
    import asyncio


class Status(StrEnum):
    """The states of a job, as the platform spells them."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"


FINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.TIMED_OUT})


@dataclass(frozen=True, slots=True)
class Take:
    """One delivery of a job to a worker."""

    worker_id: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Posted:
    """One job-done request: its body as parsed, or the raw bytes where they were refused.

    `http_status` is 0 where the result was taken and the connection broken instead of an answer.
    """

    worker_id: str
    at_s: float
    http_status: int
    body: Any


@dataclass(frozen=True, slots=True)
class Ping:
    """One heartbeat: the ids it named and its other query parameters."""

    at_s: float
    job_ids: tuple[str, ...]
    params: dict[str, str]


@dataclass(frozen=True, slots=True)
class JobResult:
    """How a job stands: queue delay and execution are milliseconds, 0 where they have not begun."""

    id: str
    status: Status
    output: Any
    error: str | None
    delay_ms: float
    execution_ms: float


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job's whole history.

    `results` are the job-done requests that were taken, the updates of progress apart;
    `refused` are all others. `late_progress` came after the job had ended: on the platform such an update
    turns a finished job back into one in progress.
    """

    id: str
    status: Status
    queued_s: float
    finished_s: float | None
    retries: int
    takes: tuple[Take, ...]
    results: tuple[Posted, ...]
    refused: tuple[Posted, ...]
    progress: tuple[Any, ...]
    late_progress: tuple[Any, ...]
    stream: tuple[Any, ...]


@dataclass(slots=True, eq=False)
class Job:
    """A job in the platform's hands; `document` is what a worker receives, encoded once."""

    id: str
    document: bytes
    is_sync: bool = False
    execution_timeout_s: float | None = None
    ttl_s: float | None = None
    queued_s: float = field(default_factory=time.monotonic)
    status: Status = Status.IN_QUEUE
    output: Any = None
    error: str | None = None
    started_s: float | None = None
    finished_s: float | None = None
    retries: int = 0
    streamed: int = 0
    takes: list[Take] = field(default_factory=list)
    results: list[Posted] = field(default_factory=list)
    refused: list[Posted] = field(default_factory=list)
    progress: list[Any] = field(default_factory=list)
    late_progress: list[Any] = field(default_factory=list)
    stream: list[Any] = field(default_factory=list)
    parcel: Parcel | None = None
    ttl_timer: asyncio.TimerHandle | None = None
    run_timer: asyncio.TimerHandle | None = None
    waiting: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def is_final(self) -> bool:
        """Whether the job will not change any more, unless it is retried."""
        return self.status in FINAL

    def result(self) -> JobResult:
        """Return how the job stands now."""
        ended_s = self.finished_s or time.monotonic()
        started_s = self.started_s or ended_s
        delay_ms, execution_ms = 1e3 * (started_s - self.queued_s), 1e3 * (ended_s - started_s)
        return JobResult(self.id, self.status, self.output, self.error, delay_ms, execution_ms)

    def record(self) -> JobRecord:
        """Return the job's history so far."""
        return JobRecord(
            id=self.id,
            status=self.status,
            queued_s=self.queued_s,
            finished_s=self.finished_s,
            retries=self.retries,
            takes=tuple(self.takes),
            results=tuple(self.results),
            refused=tuple(self.refused),
            progress=tuple(self.progress),
            late_progress=tuple(self.late_progress),
            stream=tuple(self.stream),
        )


@dataclass(slots=True, eq=False)
class Parcel:
    """One delivery still to be made; withdrawn ones are skipped when their turn comes."""

    document: bytes
    job: Job | None = None
    is_withdrawn: bool = False


@dataclass(slots=True, eq=False)
class WorkerState:
    """A worker as the platform sees it: what it holds, what it must stop, when it pinged.

    `settled` is set when it first polls, and also when its process ends without having polled.
    """

    id: str
    holding: dict[str, Job] = field(default_factory=dict)
    stops: list[str] = field(default_factory=list)
    stop_polls: HeldPolls = field(default_factory=HeldPolls)
    pings: list[Ping] = field(default_factory=list)
    settled: threading.Event = field(default_factory=threading.Event)
    has_polled: bool = False
    is_gone: bool = False
