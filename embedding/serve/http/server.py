"""The HTTP service's life: ports first, the model beside them, SIGTERM, and the end.

The ports are bound before anything is loaded, so that a load balancer sees a worker that is on its way, and
a port that is taken is told at once. The first SIGTERM or Ctrl-C lets no request begin, and the process ends
when the last has been answered; the second ends it now, with a status that says so. A device that fails ends
it with status 1, so that the platform starts it again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

import uvicorn

from embedding.errors import StartupError
from embedding.serve.events import SILENT, Tell
from embedding.serve.http.app import make_app
from embedding.serve.http.bodies import BODY_TIMEOUT_S
from embedding.serve.http.gate import Gate
from embedding.serve.http.page import make_page
from embedding.serve.http.protocol import BoundedProtocol
from embedding.serve.http.service import Service
from embedding.serve.http.state import State


if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from concurrent.futures import Future
    from types import FrameType

    from fastapi import FastAPI
    from starlette.responses import Response

    from embedding.actions import Actions
    from embedding.serve.access import Access
    from embedding.settings import Settings

log = logging.getLogger(__name__)

KEEP_ALIVE_S: Final = 75  # longer than proxies keep theirs, which would send into a connection being closed
SPARE_CONNECTIONS: Final = 4096  # idle ones, health checks, and those that are told to come again


class Loaded(NamedTuple):
    """A model that can be asked, and what `/v1/ping` tells of it."""

    actions: Actions
    about: dict[str, Any]


class HttpWorker:
    """The service, made of *settings*; *load* runs in a thread beside it, and may raise StartupError."""

    handler = None  # there is no queue

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Loaded],
        access: Access,
        tell: Tell = SILENT,
    ) -> None:
        """Bind the ports and begin to load. Raises StartupError if a port is taken."""
        self._sockets = _listen(settings)
        self._loading = ThreadPoolExecutor(1, "load").submit(load)
        self._gate = Gate(
            max_running=settings.worker_concurrency, max_request_bytes=settings.max_request_bytes
        )
        self._service = Service(self._gate, access, tell)
        self._settings = settings

    def run(self) -> NoReturn:
        """Serve until told to stop, and end the process."""
        server: _Server

        @asynccontextmanager
        async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
            task = asyncio.create_task(_make_ready(self._service, self._loading, server))
            yield
            task.cancel()

        config = uvicorn.Config(
            make_app(
                self._service,
                max_batch_size=self._settings.max_batch_size,
                lifespan=lifespan,
                page=_page(self._settings),
            ),
            loop="uvloop",
            http=BoundedProtocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=self._settings.worker_concurrency + SPARE_CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(BODY_TIMEOUT_S + self._settings.job_timeout_s) + 1,
        )
        server = _Server(config, self._service)
        for each in self._sockets:
            host, port = each.getsockname()[:2]
            print(f"listening on http://{host}:{port}", flush=True)
        server.run(list(self._sockets))
        _leave(server.exit_status)


class _Server(uvicorn.Server):
    """uvicorn's server, which goes on listening until the last request has been answered."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.exit_status = 0
        self._service = service
        self._was_told = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  uvicorn's
        name = signal.Signals(sig).name
        if self._was_told:
            log.warning("%s again: stopping now", name)
            self.exit_status = self.exit_status or 128 + sig
            self.should_exit = self.force_exit = True
            return
        self._was_told = True
        log.info("%s: finishing %d requests, beginning no more", name, self._service.gate.bodies)
        self._service.is_draining = True

    async def on_tick(self, counter: int) -> bool:
        """Return, ten times a second, whether it is time to end."""
        if self._service.state() is State.FAILED and not self.exit_status:
            log.error("the device has failed: the service ends, to be started again")
            self.exit_status = 1
            self._service.is_draining = True
        is_over = self._service.is_draining and self._service.gate.bodies == 0
        return await super().on_tick(counter) or is_over

    def fail(self, reason: str) -> None:
        """End with status 1 after one plain line."""
        print(f"✗ cannot start: {reason}", file=sys.stderr, flush=True)
        self.exit_status = 1
        self.should_exit = True


async def _make_ready(service: Service, loading: Future[Loaded], server: _Server) -> None:
    ended = asyncio.wrap_future(loading)
    await asyncio.wait([ended])
    fault = ended.exception()
    if fault is None:
        service.begin(*ended.result())
    elif isinstance(fault, StartupError):
        server.fail(str(fault))
    else:
        log.error("the model could not be loaded", exc_info=fault)
        server.fail(f"{type(fault).__name__} while the model was loaded; the log above says more")


def _leave(status: int) -> NoReturn:
    """End the process now: threads that still load, download or decode would hold it."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # as where it was closed when the process began
            with suppress(OSError):
                stream.flush()
    os._exit(status)


def _page(settings: Settings) -> Callable[[], Response] | None:
    if not settings.serve_page:
        return None
    return make_page(max_batch_size=settings.max_batch_size, max_request_bytes=settings.max_request_bytes)


def _listen(settings: Settings) -> Sequence[socket.socket]:
    """Return the sockets of PORT and, where it is another, PORT_HEALTH. Raises StartupError."""
    ports = dict.fromkeys([settings.port, settings.port_health or settings.port])
    return [_bind(settings.host, port) for port in ports]


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as fault:
        raise StartupError(f"port {port} of {host} cannot be listened on: {fault.strerror}") from None
