"""RunPod's management API on 127.0.0.1: it keeps state, checks every body, and fails when told to.

Bodies and its own answers are checked against the schemas of the API's OpenAPI document;
an answer of its own that is not in the document becomes a 500 that says so, and fails the test at exit.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeVar

from aiohttp import web

from tests.loopback.loop import running_loop

from . import schemas
from .faults import ANY_ROUTE, Fault, Faults
from .routes import Call, table
from .store import Store
from .wire import Answer, Refused, invalid, problem
from .workers import Plan


if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

T = TypeVar("T")


@dataclass(slots=True)
class Request:
    """A request that came in; `status` is None while it is held, and where no answer was given."""

    method: str
    path: str
    route: str
    body: Any
    at_s: float = field(default_factory=time.monotonic)
    status: int | None = None

    @property
    def is_change(self) -> bool:
        """Whether it asks for a change."""
        return self.method != "GET"

    @property
    def is_refused(self) -> bool:
        """Whether it was answered with a problem."""
        return self.status is not None and self.status >= 400


class ManagementApi:
    """A context manager: the API answers from entry to exit. Any thread may call its methods.

    *job_url* is where the request addresses of every endpoint lead, such as `LoopbackRunPod.endpoint_url`;
    *workers_quota* bounds the sum of `workers.max` over all endpoints.
    """

    def __init__(
        self, *, job_url: str | None = None, workers_quota: int | None = None, api_key: str = "management-key"
    ) -> None:
        self.url, self.api_key = "", api_key
        self._store = Store(job_url, workers_quota)
        self._routes = table(self._store)
        self._faults = Faults()
        self._requests: list[Request] = []
        self._wrong_answers: list[str] = []
        self._came = threading.Condition()
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            self._loop = opened.enter_context(running_loop("management-api"))
            listener = socket.create_server(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v2"
            runner = self._await(self._serve(listener))
            opened.callback(lambda: self._await(runner.cleanup()))
            self._closing = opened.pop_all()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()
        if self._wrong_answers and exc is None:
            raise AssertionError(f"answers that are not in the API's document: {self._wrong_answers}")

    @property
    def endpoints(self) -> list[dict[str, Any]]:
        """The endpoints, as the API answers them."""
        return self._call(self._store.list, "endpoints")

    @property
    def volumes(self) -> list[dict[str, Any]]:
        """The network volumes, as the API answers them."""
        return self._call(self._store.list, "volumes")

    @property
    def registries(self) -> list[dict[str, Any]]:
        """The registry credentials, as the API answers them: without user name and password."""
        return self._call(self._store.list, "registries")

    @property
    def requests(self) -> list[Request]:
        """All requests so far, in order."""
        with self._came:
            return list(self._requests)

    @property
    def changes(self) -> list[Request]:
        """The requests so far that asked for a change, refused ones included."""
        return [request for request in self.requests if request.is_change]

    def fail_next(self, route: str, fault: Fault, times: int = 1) -> None:
        """Let *fault* meet the next *times* requests of *route*: "POST /v2/serverless", or "*" for any."""
        if route != ANY_ROUTE and route not in self._routes:
            raise ValueError(f"no route {route}; there are {sorted(self._routes)}")
        self._call(self._faults.arm, route, fault, times)

    def wait_for(self, route: str, count: int = 1, timeout_s: float = 10.0) -> Request:
        """Return the *count*-th request of *route* as soon as it is there, answered or not."""

        def found() -> list[Request]:
            return [request for request in self._requests if request.route == route]

        with self._came:
            if not self._came.wait_for(lambda: len(found()) >= count, timeout_s):
                raise TimeoutError(f"{len(found())} of {count} requests of {route} after {timeout_s} s")
            return found()[count - 1]

    def add(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        """Create something as a POST of *route* does, without a request; return what it would answer."""
        answer = self._call(self._answer, route, Call("", {}, body))
        assert answer.status < 400, answer.body
        return answer.body

    def plan_workers(self, *stages: tuple[float, str], rollout_step_s: float = 0.1) -> None:
        """Let workers pass through *stages*, (seconds after birth, status), and be replaced at that pace."""
        assert stages and stages[0][0] == 0.0
        self._store.plan = Plan(stages, rollout_step_s)

    def scale(self, endpoint_id: str, count: int) -> None:
        """Have *count* workers, as jobs in the queue would bring about."""
        self._call(self._store.scale, endpoint_id, count)

    async def _serve(self, listener: socket.socket) -> web.AppRunner:
        application = web.Application(client_max_size=0)
        application.router.add_route("*", "/{path:.*}", self._respond)
        # A client that is gone must not have its held request carried out.
        runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.SockSite(runner, listener).start()
        return runner

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        route, item = self._route(request)
        raw = await request.read()
        entry = Request(request.method, request.path, route, _shown(raw))
        with self._came:
            self._requests.append(entry)
            self._came.notify_all()
        answer = self._unauthorized(request) or await self._carry_out(request, route, item, raw)
        if answer is None:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        entry.status = answer.status
        return answer.response()

    async def _carry_out(self, request: web.Request, route: str, item: str, raw: bytes) -> Answer | None:
        fault = self._faults.next(route)
        call = Call(item, request.query, raw)
        own = self._answer(route, call) if fault.has_effect else None
        await asyncio.sleep(fault.stall_s)
        if fault.drops:
            return None
        return fault.answer or own or self._answer(route, call)

    def _answer(self, route: str, call: Call) -> Answer:
        if route not in self._routes:
            return problem(404, "no such route")
        try:
            body = _body(route, call.body)
            answer = self._routes[route](Call(call.id, call.query, body))
        except Refused as refusal:
            answer = refusal.answer
        if wrong := schemas.answer_faults(route, answer.status, answer.body):
            self._wrong_answers += wrong
            return problem(500, "; ".join(wrong))
        return answer

    def _route(self, request: web.Request) -> tuple[str, str]:
        """Return the route of a request, "METHOD /path", and the id in its path."""
        exact = f"{request.method} {request.path}"
        parts = request.path.split("/")
        place = 4 if parts[2:3] == ["catalog"] else 3
        item = parts[place] if len(parts) > place else ""
        templated = f"{request.method} {'/'.join(['{id}' if n == place else p for n, p in enumerate(parts)])}"
        return (exact, "") if exact in self._routes else (templated, item)

    def _unauthorized(self, request: web.Request) -> Answer | None:
        given = request.headers.get("Authorization")
        if given == f"Bearer {self.api_key}":
            return None
        return problem(401, "invalid bearer token" if given else "missing bearer token")

    def _call(self, function: Callable[..., T], *args: Any) -> T:
        async def call() -> T:
            return function(*args)

        return self._await(call())

    def _await(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


def _body(route: str, given: Any) -> Any:
    """Return the checked body of a request: raw bytes, or a value that came without one."""
    if schemas.routes()[route]["request"] is None:
        return None
    if isinstance(given, bytes):
        try:
            given = json.loads(given)
        except ValueError as exc:
            raise Refused(400, "request body is not JSON") from exc
    if faults := schemas.request_faults(route, given):
        raise invalid(*faults)
    return given


def _shown(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw else None
    except ValueError:
        return raw
