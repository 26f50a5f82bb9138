"""A loopback RunPod: one endpoint with its queue, served to real workers and real callers on 127.0.0.1.

The server has a thread and an event loop of its own, so plain synchronous tests can use it;
every method of the platform may be called from any thread.
What it answers follows the SDK's sources and the platform's documentation;
where neither says, the module that decides says so.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from aiohttp import web

from .caller_routes import CallerRoutes
from .callers import Callers, Load, job_of_body
from .faults import Fault, Faults
from .jobs import Job, JobRecord, JobResult, Parcel, Ping, Status
from .loop import running_loop
from .store import JobStore
from .wire import Terms, dump_json, new_job
from .worker import Launch, Worker, worker_environment
from .worker_routes import WorkerRoutes


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

T = TypeVar("T")

MAX_HEADER_BYTES = 262_144  # a heartbeat names up to 64 KiB of job ids in its query, escaped
FAULTY_ROUTES = frozenset(
    {"job-take", "job-done", "job-stop", "job-stream", "ping", "run", "runsync", "status", "cancel", "health"}
)


class LoopbackRunPod:
    """A context manager: the platform answers from entry to exit, and its workers do not outlive it."""

    def __init__(
        self,
        hold_s: float = 1.0,
        *,
        runsync_wait_s: float = 90.0,
        run_max_bytes: int = 10_000_000,
        runsync_max_bytes: int = 20_000_000,
        reads_results: bool = True,
        api_key: str = "loopback-key",
    ) -> None:
        self.endpoint_id, self.base_url = "loopback", ""
        self.api_key = api_key
        self._terms = Terms(hold_s, runsync_wait_s, run_max_bytes, runsync_max_bytes, reads_results)
        self._faults = Faults()
        self._store = JobStore(self._faults)
        self._workers: list[Worker] = []
        self._numbers, self._load_numbers = count(1), count(1)
        self._closing = ExitStack()
        self._starting = ThreadPoolExecutor(1)  # where Ctrl-C cannot part a process from its entry above

    @property
    def endpoint_url(self) -> str:
        """Where callers find the endpoint: /run, /runsync, /status/ID and the others are below it."""
        return f"{self.base_url}/{self.endpoint_id}"

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            self._folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="loopback-")))
            self._loop = opened.enter_context(running_loop("loopback"))
            listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
            self.base_url = f"http://127.0.0.1:{listener.getsockname()[1]}/v2"
            runner = self._await(self._serve(listener))
            opened.callback(lambda: self._await(runner.cleanup()))
            self._closing = opened.pop_all()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._closing:
            self._starting.shutdown()
            for worker in self._workers:
                worker.kill()

    @contextmanager
    def worker(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        worker_id: str | None = None,
    ) -> Iterator[Worker]:
        """Run *command* as a worker of this endpoint until the block ends, then kill it.

        *env* is added to the environment of `worker_environment`, and wins over it.
        Jobs that the worker leaves unfinished go back to the queue.
        """
        number = next(self._numbers)
        worker_id = worker_id or f"worker-{number}"
        environment = worker_environment(self.base_url, self.endpoint_id, worker_id, self.api_key)
        launch = Launch(
            command=command,
            environment=environment | dict(env or {}),
            cwd=Path(cwd) if cwd else None,
            folder=self._folder / str(number),
        )
        worker = self._starting.submit(self._start_worker, launch, worker_id).result()
        try:
            yield worker
        finally:
            worker.kill()

    def submit(self, job_input: Any, *, extra: Mapping[str, Any] | None = None) -> str:
        """Queue a job as /run does and return its id; *extra* holds keys beside `input`, such as policy."""
        return self._submit([{**(extra or {}), "input": job_input}])[0]

    def submit_many(self, inputs: Iterable[Any]) -> list[str]:
        """Queue a job for each input, all at once, and return their ids in the same order."""
        return self._submit([{"input": job_input} for job_input in inputs])

    def submit_body(self, body: bytes) -> str:
        """Queue a job serialised beforehand, a JSON object without `id`, and return its id."""
        job = job_of_body(body, next(self._load_numbers))
        self._call(self._store.add, [job])
        return job.id

    def drive(self, bodies: Sequence[bytes], *, callers: int, **terms: float) -> Load:
        """Let *callers* send *bodies* in turn, each its next as soon as its last has ended; block until over.

        *terms* are those of `Callers.run`: duration_s or max_jobs, and timeout_s.
        """
        return self._await(Callers(self._store, bodies, self._load_numbers).run(callers, **terms))

    def inject(self, document: Any) -> None:
        """Queue *document* as it is, well-formed or not; with a string `id` it can be waited for as a job."""
        job_id = document.get("id") if isinstance(document, dict) else None
        if isinstance(job_id, str):
            self._call(self._store.add, [Job(job_id, dump_json(document))])
        else:
            self._call(self._store.enqueue, Parcel(dump_json(document)))

    def duplicate(self, job_id: str) -> None:
        """Deliver a job once more, whether or not it runs or has ended."""
        self._call(lambda: self._store.enqueue(Parcel(self._job(job_id).document, self._job(job_id))))

    def wait(self, job_id: str, timeout_s: float = 30.0) -> JobResult:
        """Return the job's result, or raise TimeoutError with the state of jobs and workers."""
        return self.wait_all([job_id], timeout_s)[0]

    def wait_all(self, job_ids: Iterable[str], timeout_s: float = 30.0) -> list[JobResult]:
        """Return the results in the order of *job_ids*, or raise TimeoutError if not all end in time."""
        return self._await(self._results(list(job_ids), timeout_s))

    def run_sync(self, job_input: Any, timeout_s: float = 30.0) -> JobResult:
        """Queue a job as /runsync does and return its result."""
        return self.wait(self._submit([{"input": job_input}], is_sync=True)[0], timeout_s)

    def result(self, job_id: str) -> JobResult:
        """Return how a job stands now."""
        return self._call(lambda: self._job(job_id).result())

    def record(self, job_id: str) -> JobRecord:
        """Return a job's history: who took it and when, and every job-done request."""
        return self._call(lambda: self._job(job_id).record())

    def cancel(self, job_id: str) -> None:
        """Cancel a job; a worker that runs it is told to stop it."""
        self._call(lambda: self._store.stop(self._job(job_id), Status.CANCELLED))

    def redeliver(self, worker_id: str) -> list[str]:
        """Queue the unfinished jobs of a worker again, as if it were lost, and return their ids."""
        return self._call(lambda: self._store.redeliver(self._store.worker(worker_id)))

    def forget(self, job_ids: Iterable[str]) -> None:
        """Free the memory of jobs and their results."""
        self._call(self._store.forget, list(job_ids))

    def fail(self, route: str, fault: Fault | int, times: int = 1) -> None:
        """Let the next *times* answers of *route* be *fault*, or an empty answer of that HTTP status.

        `job-take` stands for both kinds of take; polls already held are answered so at once.
        """
        if route not in FAULTY_ROUTES:
            raise ValueError(f"no faults for {route}; there are {sorted(FAULTY_ROUTES)}")
        self._call(self._faults.arm, route, fault if isinstance(fault, Fault) else Fault(fault), times)
        if route == "job-take":
            self._call(self._store.wake, times)

    def faults_used(self) -> dict[str, int]:
        """Return how many answers of each route were faults so far."""
        return self._call(lambda: dict(self._faults.used))

    def delay_done(self, delay_s: float) -> None:
        """Hold every job-done request that long before it counts; 0 ends it."""
        self._faults.done_delay_s = delay_s

    def health(self) -> dict[str, dict[str, int]]:
        """Return what GET /health answers."""
        return self._call(self._store.health)

    def pings(self, worker_id: str) -> list[Ping]:
        """Return the heartbeats of a worker so far."""
        return self._call(lambda: list(self._store.worker(worker_id).pings))

    def _submit(self, requests: Iterable[Mapping[str, Any]], *, is_sync: bool = False) -> list[str]:
        jobs = [new_job(request, self._terms, is_sync=is_sync) for request in requests]
        self._loop.call_soon_threadsafe(self._store.add, jobs)
        return [job.id for job in jobs]

    async def _results(self, job_ids: list[str], timeout_s: float) -> list[JobResult]:
        jobs = [self._job(job_id) for job_id in job_ids]
        try:
            async with asyncio.timeout(timeout_s):
                await self._store.wait(jobs)
        except TimeoutError as exc:
            raise TimeoutError(self._story(jobs, timeout_s)) from exc
        return [job.result() for job in jobs]

    def _job(self, job_id: str) -> Job:
        return self._store.jobs[job_id]

    def _story(self, jobs: list[Job], timeout_s: float) -> str:
        open_jobs = [f"{job.id} is {job.status}" for job in jobs if not job.is_final]
        head = f"{len(open_jobs)} of {len(jobs)} jobs open after {timeout_s} s:"
        logs = [f"{worker.id} ({worker.returncode=}) wrote:\n{worker.tail()}" for worker in self._workers]
        return "\n".join([head, *open_jobs[:5], *logs])

    def _start_worker(self, launch: Launch, worker_id: str) -> Worker:
        state = self._call(self._store.enrol, worker_id)
        worker = Worker(
            launch,
            state,
            on_exit=lambda: self._call(self._store.bury, state),
            on_kill=lambda: self._call(self._store.redeliver, state),
        )
        self._workers.append(worker)
        return worker

    async def _serve(self, listener: socket.socket) -> web.AppRunner:
        application = web.Application(middlewares=[self._guard], client_max_size=0)
        prefix = f"/v2/{self.endpoint_id}"
        application.add_routes(WorkerRoutes(self._store, self._faults, self._terms).table(prefix))
        application.add_routes(CallerRoutes(self._store, self._terms).table(prefix))
        runner = web.AppRunner(
            application,
            access_log=None,
            handler_cancellation=True,  # a poll whose worker has gone must not be handed a job
            shutdown_timeout=0.1,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )
        await runner.setup()
        await web.SockSite(runner, listener).start()
        return runner

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.headers.get("Authorization") not in {self.api_key, f"Bearer {self.api_key}"}:
            return web.Response(status=401)
        route = request.path.split("/")[3]
        if route not in {"job-take", "job-done"} and (fault := self._faults.next(route)):
            return fault.response()
        return await handler(request)

    def _call(self, function: Callable[..., T], *args: Any) -> T:
        async def call() -> T:
            return function(*args)

        return self._await(call())

    def _await(self, coroutine: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise
