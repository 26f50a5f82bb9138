"""The job loop: RunPod's queue protocol without the waiting of the SDK's own loop.

SDK 1.12.0 takes at most `concurrency` jobs a second, looks for finished work every 100 ms, drops a job that
is handed out after SIGTERM, loses a cancel between taking a job and starting it, ends at a job without an
`id`, asks a failing platform again at once, a thousand times a second, and gives a result up after 5 s. Here
a job is a task from the moment it arrives, a poll is open whenever there is room, and SIGTERM closes the poll
at once; an answer that has begun to arrive is read and its jobs are run. What an answer means, heartbeat and
fitness checks stay the SDK's.

It builds on names of the SDK that are not public, so it serves `sdk.SDK_VERSION` alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson
from aiohttp import ClientConnectionError, ClientError, ClientResponseError
from aiohttp_retry import FibonacciRetry, RetryClient
from runpod.http_client import AsyncClientSession
from runpod.serverless.modules import rp_http, rp_job, rp_scale
from runpod.serverless.modules.rp_logger import RunPodLogger, _set_batch_id


if TYPE_CHECKING:
    from aiohttp import ClientSession

FIRST_PAUSE_S: Final = 0.1  # after a poll that failed; doubles with each that follows
LONGEST_PAUSE_S: Final = 5.0  # and at once after TOO_MANY_REQUESTS, as in the SDK
HELD_POLL_S: Final = 0.05  # an empty answer that comes sooner was not held, and would be asked for in a loop
NO_JOB: Final = frozenset({204, 400})  # 400 is what FlashBoot answers
TOO_MANY_REQUESTS: Final = 429
POLL_FAULTS: Final = (ClientError, OSError, ValueError, RuntimeError, AssertionError)
MAX_TAKEN_BYTES: Final = 128 << 20  # of all jobs taken, as JSON; strings and decoded images are as much again
MAX_INT_DIGITS: Final = 4300  # sys.int_info.default_max_str_digits
ATTEMPTS: Final = 20  # to send a result, two or three seconds apart; the SDK's three are 5 s
POST_S: Final = 60.0  # for all of them
RESULT_HEADERS: Final = {
    "charset": "utf-8",
    "Content-Type": "application/x-www-form-urlencoded",
}  # as the SDK

console = RunPodLogger()


def install() -> None:
    """Let `runpod.serverless.start` run this loop in place of its own."""
    rp_scale.JobScaler = JobLoop


class _Taken(NamedTuple):
    job_id: str
    size_bytes: int


class JobLoop(rp_scale.JobScaler):  # type: ignore[misc]  # the SDK has no types
    """The SDK's JobScaler with another `run`.

    *config* holds `handler`, a coroutine function, `concurrency_modifier`, which is asked once, and perhaps
    `on_stop`, which is called when no more jobs are to be taken.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.current_concurrency = self.concurrency_modifier(1)
        self._running: dict[asyncio.Task[None], _Taken] = {}  # a job that is delivered twice has two tasks
        self._job_bytes = 0  # of each job in the last answer that brought some
        self._take_at_most = self.current_concurrency
        self._changed = asyncio.Event()  # a job has ended, or the worker is to stop

    async def run(self) -> None:
        """Take and run jobs until SIGTERM or SIGINT, then finish those taken. A second SIGINT ends it."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        async with AsyncClientSession() as session:
            stop_signals = asyncio.create_task(self.monitor_stop_signals(session))
            await self._take_jobs(session)
            while self._running:
                await asyncio.wait(self._running)
            stop_signals.cancel()
            await asyncio.wait([stop_signals])

    def kill_worker(self) -> None:
        """Take no more jobs; `run` returns when those taken are finished."""
        super().kill_worker()
        self._changed.set()
        if on_stop := self.config.get("on_stop"):
            on_stop()

    async def stop_job(self, job_id: str) -> bool:
        """Cancel a running job; it posts no result. Return whether there was one."""
        tasks = [task for task, taken in self._running.items() if taken.job_id == job_id]
        for task in tasks:
            console.info("Stopping job.", job_id)
            task.cancel()
        return bool(tasks)

    def _stop(self, number: signal.Signals) -> None:
        console.info(f"{number.name}: taking no more jobs, finishing {len(self._running)}.")
        if number == signal.SIGINT:
            asyncio.get_running_loop().add_signal_handler(number, os._exit, 128 + number)
        self.kill_worker()

    async def _take_jobs(self, session: ClientSession) -> None:
        pause_s = FIRST_PAUSE_S
        while self.is_alive():
            fitting = jobs_that_fit(
                sum(taken.size_bytes for taken in self._running.values()), self._job_bytes
            )
            room = min(self.current_concurrency - len(self._running), self._take_at_most, fitting)
            if room <= 0:
                self._changed.clear()
                await self._changed.wait()
                continue
            asked_s = time.monotonic()
            try:
                jobs = await self._poll(session, room)
            except POLL_FAULTS as fault:
                if isinstance(fault, ClientResponseError) and fault.status == TOO_MANY_REQUESTS:
                    pause_s = LONGEST_PAUSE_S
                self._take_at_most = 1  # what cannot be read costs no others when it comes again
                console.error(f"Asking for jobs failed ({_told(fault)}); asking again in {pause_s:g} s.")
                await self._pause(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                continue
            pause_s = FIRST_PAUSE_S
            self._take_at_most = min(2 * self._take_at_most, self.current_concurrency)
            started = [self._start(session, job) for job in jobs]
            if not any(started) and time.monotonic() - asked_s < HELD_POLL_S:
                await self._pause(HELD_POLL_S)

    async def _pause(self, duration_s: float) -> None:
        """Sleep, but not past the order to stop."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._shutdown_event.wait(), duration_s)

    async def _poll(self, session: ClientSession, count: int) -> list[Any]:
        """Return up to *count* jobs; none if the worker is told to stop before the platform answers.

        An answer that has begun is read to its end, and its jobs are run: the platform counts them as taken.
        """
        answer = asyncio.ensure_future(session.get(rp_job._job_get_url(count)))  # noqa: SLF001
        stopped = asyncio.ensure_future(self._shutdown_event.wait())
        await asyncio.wait(
            {answer, stopped}, timeout=self.jobs_fetcher_timeout, return_when=asyncio.FIRST_COMPLETED
        )
        stopped.cancel()
        if not answer.done():
            answer.cancel()
            return []
        async with await answer as response:
            if response.status in NO_JOB:
                return []
            response.raise_for_status()
            async with asyncio.timeout(self.jobs_fetcher_timeout):
                body = await response.read()
        jobs = _jobs_of(body)
        self._job_bytes = len(body) // len(jobs) if jobs else self._job_bytes
        return jobs

    def _start(self, session: ClientSession, job: Any) -> bool:
        job_id = job.get("id") if isinstance(job, dict) else None
        if not isinstance(job_id, str):
            console.error("The platform sent a job without an id: it cannot be answered.")
            return False
        task = asyncio.create_task(self._run_job(session, job, job_id))
        self._running[task] = _Taken(job_id, self._job_bytes)
        self.job_progress.add(job_id)
        task.add_done_callback(self._ended)
        return True

    async def _run_job(self, session: ClientSession, job: dict[str, Any], job_id: str) -> None:
        _set_batch_id(job.get("batchId"))
        result = await rp_job.run_job(self.config["handler"], job)
        await _post(session, job_id, result)
        if result.get("stopPod"):
            self.kill_worker()

    def _ended(self, task: asyncio.Task[None]) -> None:
        job_id = self._running.pop(task).job_id
        if all(taken.job_id != job_id for taken in self._running.values()):
            self.job_progress.remove(job_id)
        self._changed.set()
        if task.cancelled():
            console.info("Job stopped.", job_id)
        elif fault := task.exception():
            console.error(f"The job's result is lost: {_told(fault)}", job_id)


def jobs_that_fit(taken_bytes: int, job_bytes: int) -> int:
    """Return how many more jobs of *job_bytes* to ask for beside *taken_bytes*: one while there is any room.

    The platform hands out jobs unseen, so that one answer may exceed MAX_TAKEN_BYTES; then none is asked for.
    """
    free_bytes = MAX_TAKEN_BYTES - taken_bytes
    return max(free_bytes // max(job_bytes, 1), 1) if free_bytes > 0 else 0


def _told(fault: BaseException) -> str:
    """Return *fault* for the log. Not its repr: aiohttp's holds the request's headers, with the API key."""
    return f"{type(fault).__name__}: {fault}"


def _jobs_of(body: bytes) -> list[Any]:
    """Return the jobs of an answer. Raises ValueError or RecursionError if it cannot be read.

    One job must not cost the others: orjson would refuse them all for a lone surrogate in one, and Python's
    own reader for a number of more digits than it turns into an int.
    """
    jobs = json.loads(body, parse_int=_number) if body else []
    return jobs if isinstance(jobs, list) else [jobs]


def _number(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_INT_DIGITS else float(digits)


async def _post(session: ClientSession, job_id: str, result: dict[str, Any]) -> None:
    """Post *result*, until the platform takes or refuses it, for POST_S at most; then it is lost.

    Beside server errors, which the SDK tries again, lost connections count as trouble that passes: one that
    was kept open may be closed as it is used.
    """
    url = f"{rp_http.JOB_DONE_URL.replace('$ID', job_id)}&isStream=false"
    pauses = FibonacciRetry(ATTEMPTS, statuses={TOO_MANY_REQUESTS}, exceptions={ClientConnectionError})
    sender = RetryClient(client_session=session, retry_options=pauses)
    headers = {**RESULT_HEADERS, "X-Request-ID": job_id}
    try:
        async with (
            asyncio.timeout(POST_S),
            sender.post(url, data=orjson.dumps(result), headers=headers, raise_for_status=True) as answer,
        ):
            await answer.read()
    except (ClientError, TimeoutError) as fault:
        console.error(f"The job's result is lost, the platform did not take it: {_told(fault)}", job_id)
    console.info("Finished.", job_id)
