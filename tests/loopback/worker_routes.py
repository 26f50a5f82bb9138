"""The platform as a worker sees it: take, stop, done, stream and ping.

The SDK sends results as JSON text under the content type of a form, so bodies are read raw.
A result is refused with 400 where it is not strict JSON, not an object, or over the limit of its job:
the SDK then logs a line and drops it, and the job stays IN_PROGRESS.
An `error` that is not a string completes the job without output, as users of the platform have reported.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from aiohttp import web

from .faults import Fault, Faults
from .jobs import Job, Ping, Posted, Status
from .wire import Terms, json_response, parse_json


if TYPE_CHECKING:
    from .store import JobStore


class WorkerRoutes:
    """The handlers of the routes that a worker's environment points at."""

    def __init__(self, store: JobStore, faults: Faults, terms: Terms) -> None:
        self._store = store
        self._faults = faults
        self._terms = terms

    def table(self, prefix: str) -> list[web.RouteDef]:
        """Return the routes below *prefix*."""
        return [
            web.get(f"{prefix}/job-take/{{worker}}", self.take_one),
            web.get(f"{prefix}/job-take-batch/{{worker}}", self.take_batch),
            web.get(f"{prefix}/job-stop/{{worker}}", self.stop),
            web.post(f"{prefix}/job-done/{{worker}}/{{job}}", self.done),
            web.post(f"{prefix}/job-stream/{{worker}}/{{job}}", self.stream),
            web.get(f"{prefix}/ping/{{worker}}", self.ping),
        ]

    async def take_one(self, request: web.Request) -> web.Response:
        """Answer with one job, or 204 when none came within the hold."""
        answer = await self._store.take(request.match_info["worker"], 1, self._terms.hold_s)
        return _taken(answer, b"%s", request)

    async def take_batch(self, request: web.Request) -> web.Response:
        """Answer with a list of 1 to `batch_size` jobs, or 204 when none came within the hold."""
        max_jobs = int(request.query["batch_size"])
        answer = await self._store.take(request.match_info["worker"], max_jobs, self._terms.hold_s)
        return _taken(answer, b"[%s]", request)

    async def stop(self, request: web.Request) -> web.Response:
        """Answer with the ids to stop, or 204 when there were none within the hold."""
        job_ids = await self._store.stops(request.match_info["worker"], self._terms.hold_s)
        return json_response({"jobsToStop": job_ids}) if job_ids else web.Response(status=204)

    async def done(self, request: web.Request) -> web.Response:
        """Take a result or an update of progress; 400 for a body the platform could not carry."""
        raw = await request.read()
        if self._faults.done_delay_s:
            await asyncio.sleep(self._faults.done_delay_s)
        job = self._store.jobs.get(request.match_info["job"])
        if job is None:
            return json_response({"error": "job not found"}, status=404)
        worker_id = request.match_info["worker"]
        fault = self._faults.next("job-done")
        if fault and not fault.counts:
            job.refused.append(Posted(worker_id, time.monotonic(), fault.status, raw))
            return _misbehave(fault, request)
        if not self._terms.reads_results:
            self._accept_unread(job, worker_id, raw)
            return json_response({})
        try:
            body = self._parse(raw, job)
        except ValueError as exc:
            job.refused.append(Posted(worker_id, time.monotonic(), 400, raw))
            return json_response({"error": str(exc)}, status=400)
        self._accept(job, worker_id, body, http_status=0 if fault else 200)
        return _misbehave(fault, request) if fault else json_response({})

    def _parse(self, raw: bytes, job: Job) -> dict[str, Any]:
        max_bytes = self._terms.max_bytes(is_sync=job.is_sync)
        if len(raw) > max_bytes:
            raise ValueError(f"the result has {len(raw)} bytes; the limit is {max_bytes}")
        body = parse_json(raw)
        if not isinstance(body, dict):
            raise ValueError("the result is not an object")  # noqa: TRY004 (one kind of refusal)
        return body

    def _accept(self, job: Job, worker_id: str, body: dict[str, Any], *, http_status: int) -> None:
        if body.get("status") == "IN_PROGRESS":
            (job.late_progress if job.is_final else job.progress).append(body.get("output"))
            return
        job.results.append(Posted(worker_id, time.monotonic(), http_status, body))
        self._store.release(job, worker_id)
        error = body.get("error")
        if error is None:
            self._store.finish(job, Status.COMPLETED, output=body.get("output"))
        elif isinstance(error, str):
            self._store.finish(job, Status.FAILED, output=body.get("output"), error=error)
        else:
            self._store.finish(job, Status.COMPLETED)

    def _accept_unread(self, job: Job, worker_id: str, raw: bytes) -> None:
        self._store.release(job, worker_id)
        status = Status.FAILED if b'"error":' in raw else Status.COMPLETED
        self._store.finish(job, status, output=raw)

    async def stream(self, request: web.Request) -> web.Response:
        """Take one partial output."""
        job = self._store.jobs.get(request.match_info["job"])
        if job is None:
            return json_response({"error": "job not found"}, status=404)
        try:
            body = self._parse(await request.read(), job)
        except ValueError as exc:
            return json_response({"error": str(exc)}, status=400)
        job.stream.append(body.get("output"))
        return json_response({})

    async def ping(self, request: web.Request) -> web.Response:
        """Note a heartbeat."""
        params = dict(request.query)
        job_ids = tuple(filter(None, params.pop("job_id", "").split(",")))
        pings = self._store.worker(request.match_info["worker"]).pings
        pings.append(Ping(time.monotonic(), job_ids, params))
        return json_response({})


def _taken(answer: Fault | list[bytes], frame: bytes, request: web.Request) -> web.Response:
    if isinstance(answer, Fault):
        return _misbehave(answer, request)
    if not answer:
        return web.Response(status=204)
    return web.Response(body=frame % b",".join(answer), content_type="application/json")


def _misbehave(fault: Fault, request: web.Request) -> web.Response:
    if fault.drops and request.transport:
        request.transport.abort()
    return fault.response()
