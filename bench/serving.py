"""A worker process behind a loopback RunPod, and callers that keep it busy.

Platform and callers share one thread of this process, and this machine with the worker: what they cost is
measured and told with every figure. Results are not parsed but for a sample, which is compared with
open_clip's vectors.
"""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bench import process
from bench.figures import percentile, rate
from bench.model import ROOT, check_answer
from tests.loopback import LoopbackRunPod


if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from bench.model import Vectors
    from tests.loopback import Completion, Load, Worker

HOLD_S: Final = 20.0  # how long the platform holds a poll
READY_S: Final = 120.0
DRAIN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Command:
    """How a worker is started: its arguments and what is added to its environment."""

    argv: Sequence[str]
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Served:
    """What callers saw: jobs a second, and milliseconds from submission to result.

    `driver_cpu_ms` and `worker_cpu_ms` are CPU time for each job: of platform and callers, of the worker.
    """

    jobs: int
    jobs_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    driver_cpu_ms: float
    worker_cpu_ms: float


def ours(folder: Path, *, script: Sequence[str] = ("handler.py",), **env: str) -> Command:
    """Return the command of this repository's worker with the model of *folder*."""
    serving = {"RUNPOD_SERVERLESS": "1", "ALLOW_INSECURE_AUTH": "1", "MODEL_PATH": str(folder)}
    return Command((sys.executable, *script), {**serving, **env})


def documented(folder: Path) -> Command:
    """Return the command of the handler written as documentation has it."""
    return Command((sys.executable, "-m", "bench.baseline", str(folder)), {})


def free_engine(concurrency: int) -> Command:
    """Return the command of a worker whose answers cost nothing."""
    env = {"RUNPOD_SERVERLESS": "1", "WORKER_CONCURRENCY": str(concurrency)}
    return Command((sys.executable, "-m", "bench.free"), env)


class Serving:
    """A worker that takes jobs, and the platform that gives them."""

    def __init__(self, platform: LoopbackRunPod, worker: Worker) -> None:
        self.platform = platform
        self.worker = worker

    def load(
        self, bodies: Sequence[bytes], *, callers: int, duration_s: float, references: Vectors | None = None
    ) -> Served:
        """Return what *callers* see in *duration_s* in which each always has one job of *bodies* open.

        Where *references* (N, D) are given, a sample of the answers must agree with them, body by body.
        Raises WrongAnswer, or RuntimeError if a job fails.
        """
        started_s, cpu_s = time.monotonic(), process.cpu_s(self.worker.pid)
        load = self.platform.drive(bodies, callers=callers, duration_s=duration_s, timeout_s=DRAIN_S)
        cpu_s = process.cpu_s(self.worker.pid) - cpu_s
        check(load.completions, references)
        inside = [done for done in load.completions if done.finished_s <= started_s + duration_s]
        return _served(load, inside, cpu_s)

    def run_jobs(self, bodies: Sequence[bytes], *, callers: int, jobs: int) -> Load:
        """Return when *jobs* of *bodies* are done; raises RuntimeError if one fails."""
        load = self.platform.drive(bodies, callers=callers, max_jobs=jobs, timeout_s=DRAIN_S)
        check(load.completions, None)
        return load


@contextmanager
def serving(command: Command, *, reads_results: bool = False) -> Iterator[Serving]:
    """Run *command* as a worker until the block ends; the block begins when it asks for jobs.

    *reads_results*: others than `load` ask after jobs too, over HTTP.
    """
    with (
        LoopbackRunPod(HOLD_S, reads_results=reads_results) as platform,
        platform.worker(command.argv, env=_environment(command), cwd=ROOT) as worker,
    ):
        worker.wait_ready(READY_S)
        yield Serving(platform, worker)


def first_result_s(command: Command, body: bytes) -> tuple[float, str]:
    """Return the seconds from a worker's start to the result of a job that waited for it, and its log."""
    with LoopbackRunPod(HOLD_S, reads_results=False) as platform:
        job = platform.submit_body(body)
        started_s = time.monotonic()
        with platform.worker(command.argv, env=_environment(command), cwd=ROOT) as worker:
            if platform.wait(job, READY_S).status != "COMPLETED":
                raise RuntimeError(f"the first job failed; the worker's log ends: {worker.log()[-300:]}")
            finished_s = platform.record(job).finished_s or time.monotonic()
            return finished_s - started_s, worker.log()


def check(completions: Sequence[Completion], references: Vectors | None) -> None:
    """Raise RuntimeError if a job failed, WrongAnswer if a sampled answer is not open_clip's."""
    failed = [done for done in completions if done.status != "COMPLETED"]
    if failed:
        told = str(failed[0].output)[:200]
        raise RuntimeError(f"{len(failed)} of {len(completions)} jobs are {failed[0].status}: {told}")
    if references is None:
        return
    for done in completions:
        if done.output is not None:
            check_answer(done.output, done.body, references)


def _environment(command: Command) -> dict[str, str]:
    return {"PYTHONPATH": str(ROOT), **command.env}


def _served(load: Load, inside: Sequence[Completion], worker_cpu_s: float) -> Served:
    took_ms = [(done.finished_s - done.queued_s) * 1e3 for done in inside]
    all_jobs = len(load.completions)
    return Served(
        jobs=len(inside),
        jobs_per_s=rate([done.finished_s for done in inside]),
        p50_ms=percentile(took_ms, 50),
        p95_ms=percentile(took_ms, 95),
        p99_ms=percentile(took_ms, 99),
        driver_cpu_ms=load.cpu_s / all_jobs * 1e3,
        worker_cpu_ms=worker_cpu_s / all_jobs * 1e3,
    )
