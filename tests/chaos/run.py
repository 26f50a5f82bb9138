"""One run: callers send all jobs while the disturber is at work; then everything is judged and counted."""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections import deque
from contextlib import ExitStack
from typing import TYPE_CHECKING

from bench.inputs import TEXTS
from embedding.contract.keys import Keyring
from tests.chaos.crew import READY_S, Crew
from tests.chaos.disturbances import Disturber
from tests.chaos.figures import Outcome, Sent, counted, judged, missing
from tests.chaos.images import ImageServer
from tests.chaos.items import Items, make_pictures
from tests.chaos.jobs import Job, JobMaker
from tests.chaos.references import reference_vectors
from tests.loopback import LoopbackRunPod


if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.plan import Plan

LOOK_S = 0.02
TELL_EVERY_S = 5.0
STALL_S = 15.0  # no job ended for so long: a result was refused three times, and its worker gave it up
ENVIRONMENT = {
    "RUNPOD_SERVERLESS": "1",
    "ALLOW_DEMO_MODEL": "1",
    "CLIP_PRECISION": "fp32",
    "AUTH_TIME_WINDOW_SECONDS": "900",  # jobs are signed when the run begins
    "WORKER_CONCURRENCY": "16",  # so that jobs are spread over all workers, and a killed one holds many
    "OMP_NUM_THREADS": "1",
}


class Callers:
    """Threads that each send a job, wait for its end, and send the next."""

    def __init__(self, platform: LoopbackRunPod, jobs: list[Job], count: int, deadline_s: float) -> None:
        self._ids: dict[str, Job] = {}
        self.ended = 0
        self._platform = platform
        self._jobs = deque(jobs)
        self._deadline_s = deadline_s
        self._counting = threading.Lock()
        self._threads = [threading.Thread(target=self._call, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def sent(self) -> list[Sent]:
        """Return every job that was sent, as it stands now."""
        return [
            Sent(job, self._platform.record(job_id), self._platform.result(job_id))
            for job_id, job in self._ids.items()
        ]

    def are_busy(self) -> bool:
        """Return whether jobs are open or still to be sent."""
        return any(thread.is_alive() for thread in self._threads)

    def latest(self) -> str | None:
        """Return the id of the job that was sent last."""
        with self._counting:
            return next(reversed(self._ids), None)

    def _call(self) -> None:
        while self._jobs:
            with self._counting:
                if not self._jobs:
                    return
                job = self._jobs.popleft()
                job_id = self._platform.submit(job.input)
                self._ids[job_id] = job
            try:
                self._platform.wait(job_id, max(self._deadline_s - time.monotonic(), 0.01))
            except TimeoutError:
                continue  # it is found lost when all are judged
            with self._counting:
                self.ended += 1


def run(plan: Plan, say: Callable[[str], None]) -> Outcome:
    """Return what came of *plan*; *say* is told how it goes, a line every few seconds."""
    started_s = time.monotonic()
    pictures = make_pictures()
    secret, api_key = secrets.token_urlsafe(32), f"chaos-{secrets.token_urlsafe(16)}"
    with ExitStack() as opened:
        server = opened.enter_context(ImageServer(pictures).running())
        platform = opened.enter_context(LoopbackRunPod(hold_s=1.0, api_key=api_key))
        env = ENVIRONMENT | {"EMBEDDING_HMAC_SECRET": secret}
        crew = Crew(platform, plan.workers, port=server.port, seed=plan.seed, env=env)
        rng = random.Random(plan.seed)
        jobs = JobMaker(rng, Items(rng, pictures, server), Keyring.parse(secret).newest).make(plan.jobs)
        with crew:
            say(f"{plan.workers} workers are starting; {plan.jobs} jobs, seed {plan.seed}")
            vectors = reference_vectors(pictures, TEXTS)
            deadline_s = started_s + plan.timeout_s
            crew.wait_full(min(READY_S, deadline_s - time.monotonic()))
            callers = Callers(platform, jobs, plan.callers, deadline_s)
            disturber = Disturber(platform, crew, seed=plan.seed, jobs=plan.jobs, latest=callers.latest)
            renewals = _watch(callers, disturber, crew, say)
        wall_s = time.monotonic() - started_s
        sent = callers.sent()
        outcome = judged(sent, crew.members, vectors=vectors, secrets=(secret, api_key))
        outcome.figures |= {
            **{f"disturbance: {name}": count for name, count in sorted(disturber.done.items())},
            "stalls that new workers ended": renewals,
            **counted(sent, crew, platform, server),
            "wall time": f"{wall_s:.1f} s",
        }
    outcome.violations += missing(outcome.figures)
    if renewals and not outcome.figures["results given up by their worker"]:
        outcome.violations.append("jobs were stuck until the workers were renewed, and nothing explains it")
    return outcome


def _watch(callers: Callers, disturber: Disturber, crew: Crew, say: Callable[[str], None]) -> int:
    """Disturb until all jobs have ended; return how often all workers had to be renewed."""
    started_s = told_s = moved_s = time.monotonic()
    ended = renewals = 0
    while callers.are_busy():
        time.sleep(LOOK_S)
        now_s = time.monotonic()
        if callers.ended > ended or not callers.ended:
            ended, moved_s = callers.ended, now_s
        disturber.act(ended)
        if now_s - moved_s > STALL_S:
            crew.renew()
            renewals, moved_s = renewals + 1, now_s
        if now_s - told_s > TELL_EVERY_S:
            told_s = now_s
            say(f"{now_s - started_s:4.0f} s: {ended} jobs have ended; {disturber.told()}")
    return renewals
