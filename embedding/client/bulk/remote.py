"""Rows to workers behind RunPod's queue or the HTTP service, through the client's own transports.

The platform counts requests over ten seconds: 1,000 of /run, 2,000 of /status, 100 of /cancel (RunPod's
"Operation reference"). Four fifths of that are used, so that others who call the endpoint have some left.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self

import httpx

from embedding.client.arguments import credential, endpoint, hint_for, signing_key, web_url
from embedding.client.bulk.flow import Answer
from embedding.client.bulk.folder import Model
from embedding.client.bulk.line import Line
from embedding.client.bulk.rows import Row
from embedding.client.bulk.window import Window
from embedding.client.calls import ENVELOPE_BYTES, Call, Options
from embedding.client.embeddings import Collected
from embedding.client.errors import ClientError
from embedding.client.http import HttpTransport
from embedding.client.identity import IdentityCheck
from embedding.client.serverless import ServerlessTransport, pauses_s
from embedding.client.wire import Wire


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType

    from embedding.client.calls import Transport
    from embedding.client.retries import Attempts
    from embedding.client.serverless import Pauses
    from embedding.contract.fields import EmbedDtype
    from embedding.settings import ClientSettings

CONNECTIONS: Final = 64
ATTEMPTS: Final = 40  # over five minutes: a platform that is away for so long is waited for
JOB_TIMEOUT_S: Final = 3600.0
HTTP_TIMEOUT_S: Final = 600.0
LOOK_S: Final = 2.0
SPLIT_JOBS: Final = 4  # in flight of those that one becomes, where a worker takes fewer items
REQUESTS_PER_S: Final = {"run": 80.0, "status": 160.0, "cancel": 8.0}
BURST_S: Final = 8.0  # an idle route saves so much of its rate
TOO_MANY_REQUESTS: Final = 429


class Remote:
    """A backend: workers reached over *transport*. Use it in `async with`."""

    def __init__(
        self,
        transport: Transport,
        window: Window,
        identity: IdentityCheck,
        *,
        batch_size: int,
        dtype: EmbedDtype,
    ) -> None:
        self.window = window
        self.max_items = self._taken_items = batch_size  # a worker may take fewer in one job
        self.max_bytes = transport.max_request_bytes - ENVELOPE_BYTES
        self._transport = transport
        self._identity = identity
        self._options = Options(dtype=dtype)
        self.look: Callable[[], Any] | None = None

    async def embed(self, rows: Sequence[Row]) -> Answer:
        """Return what became of *rows*. Raises a ClientError."""
        collected = Collected()
        call = Call(self._transport, self._options, collected, self._taken_items, SPLIT_JOBS)
        await call.embed(rows, Row.wire_item)
        self._taken_items = min(self._taken_items, call.max_items)
        whole = collected.whole()
        outcomes = [
            vector if error is None else error
            for vector, error in zip(whole.vectors, whole.errors, strict=True)
        ]
        if whole.fingerprint is not None:
            await self._identity.once(self._transport)
        made_by = None if whole.fingerprint is None else Model(whole.fingerprint, whole.model)
        return Answer(outcomes, made_by if collected.vectors else None)

    async def __aenter__(self) -> Self:
        self._looking = asyncio.ensure_future(self._keep_looking())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._looking.cancel()
        await asyncio.wait([self._looking])
        await self._transport.aclose()

    async def _keep_looking(self) -> None:
        while self.look is not None:
            with suppress(ClientError):
                self.window.look(await self.look())
            await asyncio.sleep(LOOK_S)


def through_queue(
    settings: ClientSettings, *, concurrency: int, batch_size: int, dtype: EmbedDtype
) -> Remote:
    """Return the backend of a queue endpoint. Raises ValueError for an id, key or secret that is none."""
    window = Window(concurrency)
    secret = _secret(settings.hmac_secret)
    bearer = credential(str(_secret(settings.api_key)), "RUNPOD_API_KEY")
    base_url = web_url(settings.api_url, "RUNPOD_ENDPOINT_BASE_URL", bearer=bearer)
    url = f"{base_url}/{endpoint(str(settings.endpoint_id))}"
    wire = PacedWire(bearer, window)
    transport = _Queue(
        wire,
        url,
        signing_key(secret),
        timeout_s=JOB_TIMEOUT_S,
        is_long=True,
        hint=hint_for(secret=secret),
    )
    remote = Remote(transport, window, _expected(settings), batch_size=batch_size, dtype=dtype)
    remote.look = lambda: wire.send("GET", f"{url}/health", wire.attempts(LOOK_S * 5))
    return remote


def over_http(settings: ClientSettings, *, concurrency: int, batch_size: int, dtype: EmbedDtype) -> Remote:
    """Return the backend of an HTTP service. Raises ValueError for a URL, token or secret that is none."""
    window = Window(concurrency, size=concurrency)
    secret, token = _secret(settings.hmac_secret), _secret(settings.worker_token)
    bearer = None if token is None else credential(token, "WORKER_TOKEN")
    transport = HttpTransport(
        PacedWire(bearer, window),
        web_url(str(settings.pod_base_url), "--url", bearer=bearer),
        None if token is not None else signing_key(secret),
        timeout_s=HTTP_TIMEOUT_S,
        hint=hint_for(secret=secret, token=token),
    )
    return Remote(transport, window, _expected(settings), batch_size=batch_size, dtype=dtype)


def _expected(settings: ClientSettings) -> IdentityCheck:
    return IdentityCheck(settings.expected_commit, settings.expected_digest)


def _secret(value: Any) -> str | None:
    return None if value is None else str(value.get_secret_value())


class _Queue(ServerlessTransport):
    """A queue endpoint whose jobs are asked after when they should be done."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._line = Line()

    def _pauses(self) -> Pauses:
        return self._line.join(pauses_s())


class PacedWire(Wire):
    """A wire that keeps below the platform's rates, and tells *window* of refusals for too many requests."""

    def __init__(self, bearer: str | None, window: Window) -> None:
        super().__init__(bearer, attempts=ATTEMPTS, connections=CONNECTIONS)
        self._window = window
        self._paces = {route: _Pace(rate) for route, rate in REQUESTS_PER_S.items()}

    async def _once(
        self,
        method: str,
        url: str,
        attempts: Attempts,
        body: Callable[[], bytes] | None,
        late: Callable[[Any], Awaitable[None]] | None,
    ) -> Any:
        try:
            async with asyncio.timeout(attempts.left_s):
                for route, pace in self._paces.items():
                    if f"/{route}/" in f"{url}/":
                        await pace.turn()
        except TimeoutError as fault:
            return fault
        outcome = await super()._once(method, url, attempts, body, late)
        if isinstance(outcome, httpx.Response) and outcome.status_code == TOO_MANY_REQUESTS:
            self._window.refuse()
        return outcome


class _Pace:
    """Turns at *rate_per_s*, and what BURST_S of idling saved at once."""

    def __init__(self, rate_per_s: float) -> None:
        self._step_s = 1 / rate_per_s
        self._next_s = 0.0

    async def turn(self) -> None:
        now_s = asyncio.get_running_loop().time()
        self._next_s = max(self._next_s, now_s - BURST_S) + self._step_s
        if self._next_s > now_s:
            await asyncio.sleep(self._next_s - now_s)
