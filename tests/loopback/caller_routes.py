"""The platform as a caller sees it: what `runpod.Endpoint` calls, retry, and the OpenAI passthrough.

Replies have the keys that the SDK's client and the platform's documentation name.
Two rules are not published and are chosen here:
the passthrough answers with the only element of a one-element list, and a failed job becomes HTTP 500 there.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import web

from .jobs import FINAL, Job, Status
from .wire import Terms, json_response, new_job, parse_json


if TYPE_CHECKING:
    from .store import JobStore

MIN_WAIT_MS, MAX_WAIT_MS = 1_000, 300_000


class CallerRoutes:
    """The handlers of the routes below the endpoint's public address."""

    def __init__(self, store: JobStore, terms: Terms) -> None:
        self._store = store
        self._terms = terms

    def table(self, prefix: str) -> list[web.RouteDef]:
        """Return the routes below *prefix*."""
        return [
            web.post(f"{prefix}/run", self.run),
            web.post(f"{prefix}/runsync", self.runsync),
            web.get(f"{prefix}/status/{{job}}", self.status),
            web.get(f"{prefix}/stream/{{job}}", self.stream),
            web.post(f"{prefix}/cancel/{{job}}", self.cancel),
            web.post(f"{prefix}/retry/{{job}}", self.retry),
            web.get(f"{prefix}/health", self.health),
            web.post(f"{prefix}/purge-queue", self.purge_queue),
            web.route("*", f"{prefix}/openai{{route:/.+}}", self.openai),
        ]

    async def run(self, request: web.Request) -> web.Response:
        """Queue a job and answer at once."""
        job = await self._submit(request, is_sync=False)
        return json_response({"id": job.id, "status": Status.IN_QUEUE})

    async def runsync(self, request: web.Request) -> web.Response:
        """Queue a job and answer with its result, or with how it stands when the wait is over."""
        job = await self._submit(request, is_sync=True)
        await self._wait(job, _wait_s(request) or self._terms.runsync_wait_s)
        return json_response(_standing(job))

    async def status(self, request: web.Request) -> web.Response:
        """Answer with how a job stands."""
        return json_response(_standing(self._job(request)))

    async def stream(self, request: web.Request) -> web.Response:
        """Answer with the partial outputs that came since the last call."""
        job = self._job(request)
        chunks, job.streamed = job.stream[job.streamed :], len(job.stream)
        return json_response({**_standing(job), "stream": [{"output": chunk} for chunk in chunks]})

    async def cancel(self, request: web.Request) -> web.Response:
        """Cancel a job, queued or running; one that has ended stays as it is."""
        job = self._job(request)
        self._store.stop(job, Status.CANCELLED)
        return json_response({"id": job.id, "status": job.status})

    async def retry(self, request: web.Request) -> web.Response:
        """Queue a FAILED or TIMED_OUT job again; 400 for any other."""
        job = self._job(request)
        if not self._store.retry(job):
            return json_response({"error": f"a job that is {job.status} cannot be retried"}, status=400)
        return json_response({"id": job.id, "status": job.status})

    async def health(self, _request: web.Request) -> web.Response:
        """Answer with the counts of jobs and workers."""
        return json_response(self._store.health())

    async def purge_queue(self, _request: web.Request) -> web.Response:
        """Cancel all queued jobs."""
        return json_response({"removed": self._store.purge(), "status": "completed"})

    async def openai(self, request: web.Request) -> web.Response:
        """Carry an OpenAI request to the worker and its answer back."""
        job_input: dict[str, Any] = {"openai_route": request.match_info["route"]}
        if request.method == "POST":
            job_input["openai_input"] = await _json_body(request)
        job = self._new_job({"input": job_input}, is_sync=True)
        await self._wait(job, self._terms.runsync_wait_s)
        if job.status is not Status.COMPLETED:
            message = job.error or f"the job is {job.status}"
            return json_response({"error": {"message": message, "type": "server_error"}}, status=500)
        is_wrapped = isinstance(job.output, list) and len(job.output) == 1
        return json_response(job.output[0] if is_wrapped else job.output)

    async def _submit(self, request: web.Request, *, is_sync: bool) -> Job:
        return self._new_job(await _json_body(request), is_sync=is_sync)

    def _new_job(self, body: Any, *, is_sync: bool) -> Job:
        if not isinstance(body, dict):
            raise web.HTTPBadRequest(text="the request is not an object")
        try:
            job = new_job(body, self._terms, is_sync=is_sync)
        except ValueError as exc:
            raise web.HTTPBadRequest(text=str(exc)) from exc
        self._store.add([job])
        return job

    def _job(self, request: web.Request) -> Job:
        job = self._store.jobs.get(request.match_info["job"])
        if job is None:
            raise web.HTTPNotFound(text="job not found")
        return job

    async def _wait(self, job: Job, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._store.wait([job])
        except TimeoutError:
            return


async def _json_body(request: web.Request) -> Any:
    try:
        return parse_json(await request.read())
    except ValueError as exc:
        raise web.HTTPBadRequest(text="the request is not JSON") from exc


def _wait_s(request: web.Request) -> float | None:
    wait_ms = request.query.get("wait")
    if wait_ms is None:
        return None
    if not wait_ms.isdecimal() or not MIN_WAIT_MS <= int(wait_ms) <= MAX_WAIT_MS:
        raise web.HTTPBadRequest(text=f"wait must be {MIN_WAIT_MS} to {MAX_WAIT_MS} ms")
    return int(wait_ms) / 1e3


def _standing(job: Job) -> dict[str, Any]:
    result = job.result()
    reply: dict[str, Any] = {"id": job.id, "status": job.status, "delayTime": round(result.delay_ms)}
    if job.takes:
        reply |= {"executionTime": round(result.execution_ms), "workerId": job.takes[-1].worker_id}
    if job.retries:
        reply["retries"] = job.retries
    if job.error is not None:
        reply["error"] = job.error
    if job.output is not None:
        reply["output"] = job.output
    elif job.progress and job.status not in FINAL:
        reply["output"] = job.progress[-1]
    return reply
