"""A request's way: who asks, its body, is there room, the action, its answer; and what the worker is doing.

A caller who hangs up is noticed, and what of his work has not begun is dropped. A bearer token stands for a
signature where WORKER_TOKEN is set; one that is wrong is refused, whatever is signed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final

import orjson
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from embedding.contract.requests import request_id_of
from embedding.errors import AuthFailed, InternalError, Overloaded, Unavailable, WorkerError
from embedding.serve.events import SILENT, Tell
from embedding.serve.http import bodies
from embedding.serve.http.metrics import OK, Metrics
from embedding.serve.http.scrape import ServiceCollector
from embedding.serve.http.state import State


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from embedding.actions import Actions
    from embedding.serve.access import Access
    from embedding.serve.http.gate import Gate

log = logging.getLogger(__name__)

RETRY_AFTER_S: Final = 1
CLIENT_GONE: Final = 499  # nginx's; nobody reads it


class Service:
    """The worker as its routes see it: loading, ready, draining or failed."""

    def __init__(self, gate: Gate, access: Access, tell: Tell = SILENT) -> None:
        """Wait for actions; *access* says who may ask them, and *tell* counts who is asking."""
        self._tell = tell
        self.actions: Actions | None = None
        self.about: dict[str, Any] = {}  # what `/v1/ping` tells beside the status
        self.is_draining = False
        self.gate = gate
        self.metrics = Metrics(ServiceCollector(self))
        self.access = access

    def begin(self, actions: Actions, about: dict[str, Any]) -> None:
        """Answer by *actions* from now on, and tell *about*."""
        actions.watch = self.metrics.count_items
        self.actions, self.about = actions, about
        self._tell.ready(is_session=True)

    def ready(self) -> Actions:
        """Return the actions. Raises Unavailable while there are none, or none are to begin."""
        if self.is_draining:
            raise Unavailable("the service is stopping; ask another")
        if self.actions is None:
            raise Unavailable("the service is loading its model; try again in a few seconds")
        return self.actions

    def state(self) -> State:
        """Return what the service is doing."""
        if self.actions is not None and not self.actions.is_healthy():
            return State.FAILED
        if self.is_draining:
            return State.DRAINING
        return State.LOADING if self.actions is None else State.READY

    async def answer(
        self, request: Request, run: Callable[[Actions, Any, bool], Awaitable[Any]], *, action: str | None
    ) -> Response:
        """Return the response to *request*: what *run* makes of actions, input and the caller's trust.

        *action* says what the route takes; None is OpenAI's. Never raises but for cancellation.
        """
        started_s = time.perf_counter()
        code, response = await self._outcome(request, run, action, started_s)
        took_s = time.perf_counter() - started_s
        self.metrics.count_request(action or "openai", code, response.status_code, took_s)
        return response

    async def _outcome(
        self,
        request: Request,
        run: Callable[[Actions, Any, bool], Awaitable[Any]],
        action: str | None,
        started_s: float,
    ) -> tuple[str, Response]:
        """Return the response, and its code: OK, an error's, or CLIENT_GONE."""
        job_input = None
        try:
            is_trusted = self.access.trusts(request.headers.get("authorization", ""))
            actions = self.ready()
            self.gate.check_size(_content_length(request))
            with self.gate.body(is_trusted=is_trusted) as body:
                await bodies.receive(request, body)
                with self.gate.place(), self._tell.job():
                    job_input = await bodies.job_input(request, body.data, action=action)
                    answer = await _unless_gone(request, run(actions, job_input, is_trusted))
        except ClientDisconnect:
            return "CLIENT_GONE", Response(status_code=CLIENT_GONE)
        except WorkerError as error:
            log.info("%s: %s", error.code, error.message)
            return error.code, error_response(error, request_id_of(job_input))
        except Exception:
            log.exception("the request failed in a way nobody foresaw")
            unforeseen = InternalError("the worker failed on this request; its log says why")
            return unforeseen.code, error_response(unforeseen, request_id_of(job_input))
        return OK, json_response(answer, headers=_timing_headers(answer, started_s))


def json_response(content: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return *content* as JSON."""
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


def error_response(error: WorkerError, request_id: str | None = None) -> Response:
    """Return *error* as its caller sees it: the tree's status, and `{"error": {code, message, …}}`."""
    headers = {}
    if isinstance(error, Overloaded):
        headers["Retry-After"] = str(RETRY_AFTER_S)
    if isinstance(error, AuthFailed):
        headers["WWW-Authenticate"] = "Bearer"
    told = {"error": {**error.as_item(), "request_id": request_id}}
    return json_response(told, status=error.http_status, headers=headers)


async def _unless_gone(request: Request, work: Awaitable[Any]) -> Any:
    """Return what *work* gives; cancel it and raise ClientDisconnect when the caller hangs up before."""
    running = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({running, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            raise ClientDisconnect
        return running.result()
    finally:
        running.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _content_length(request: Request) -> int:
    length = request.headers.get("content-length", "0")
    return int(length) if length.isdecimal() else 0


def _timing_headers(answer: Any, started_s: float) -> dict[str, str]:
    """Return where the time went, in milliseconds."""
    timings = answer.get("batch_timings") or answer.get("timings") or {}
    phases = {"x-queue-time": timings.get("queue_ms"), "x-inference-time": timings.get("inference_ms")}
    told = {name: f"{took_ms:.3f}" for name, took_ms in phases.items() if took_ms is not None}
    return {**told, "x-total-time": f"{(time.perf_counter() - started_s) * 1e3:.3f}"}
