"""What a job can ask, one function per action: the only place where contract, intake and model meet.

`Actions.run` takes the `input` of a job and returns its answer as plain JSON, or raises the WorkerError
that the job as a whole deserves. An item that fails inside a list becomes an error in its place.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from embedding.contract import openai
from embedding.contract.operator import OperatorRequest
from embedding.contract.requests import (
    BatchRequest,
    EmbedRequest,
    HealthRequest,
    Item,
    Rejected,
    parse,
)
from embedding.contract.responses import (
    Embedded,
    Served,
    Timings,
    check_listing_size,
    check_size_after,
    check_size_before,
    embedding_json,
    results_json,
)
from embedding.contract.signatures import covers_job
from embedding.errors import AuthFailed, InternalError, ModelMismatch, Overloaded, WorkerError
from embedding.operator.access import OFF, check_operator
from embedding.pipeline import JobDownloads


if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from embedding.contract.canonical import Signable
    from embedding.contract.signatures import Verifier
    from embedding.operator.downloads import Report
    from embedding.operator.operator import Operator
    from embedding.pipeline import Authorize, Pipeline
    from embedding.self_test import SelfTest

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JobLimits:
    """How much one job may ask."""

    max_batch_size: int
    max_response_bytes: int
    job_timeout_s: float


@dataclass(frozen=True, slots=True)
class _Caller:
    job_id: str | None
    is_trusted: bool


class Actions:
    """The actions of one worker: a served model behind its pipeline.

    `watch` is told of every job's items once all are done; whoever counts them puts itself there.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        served: Served,
        limits: JobLimits,
        *,
        verifier: Verifier | None,
        self_test: SelfTest,
        about: dict[str, Any],
        operator: Operator | None = None,
    ) -> None:
        """Keep what the actions need.

        *verifier* None accepts every job unsigned; *self_test* is what `health` runs when asked to, and
        *about* what it tells beside counters. Without *operator* there are no operator's actions.
        """
        self.watch: Callable[[Sequence[Item | Rejected], Sequence[Embedded | Rejected]], None] = _tell_nobody
        self.served = served
        self.pipeline = pipeline
        self._limits = limits
        self._verifier = verifier
        self._self_test = self_test
        self._about = about
        self._operator = operator
        self._started_s = time.monotonic()
        self._counters = {"jobs": 0, "items": 0, "item_errors": 0}

    async def run(
        self,
        job_input: Any,
        *,
        action: str | None = None,
        job_id: str | None = None,
        is_trusted: bool = False,
        report: Report | None = None,
    ) -> Any:
        """Return the answer to *job_input*, plain JSON.

        *action* is what the transport knows it to be; *job_id* is the queue's, for redelivery; *is_trusted*
        says that the transport vouches for the caller, who then need not sign; *report* is awaited with how
        far a long action is. Raises the WorkerError that the whole job deserves.
        """
        self._counters["jobs"] += 1
        caller = _Caller(job_id, is_trusted)
        if action is None and openai.is_passthrough(job_input):
            return await self._openai(job_input, caller)
        request = parse(job_input, action=action, max_batch_size=self._limits.max_batch_size)
        if isinstance(request, OperatorRequest):
            return await self._operate(request, job_input, caller, report)
        authorize = await self._authorizer(request, job_input, caller)
        self._check_model(request.model)
        if isinstance(request, HealthRequest):
            return await self._health(request)
        return await self._embed(request, authorize)

    def stop(self) -> None:
        """End what runs for longer than a worker has to end; its jobs are answered so."""
        if self._operator is not None:
            self._operator.stop()

    async def _operate(
        self, request: OperatorRequest, job_input: dict[str, Any], caller: _Caller, report: Report | None
    ) -> dict[str, Any]:
        """Do what an operator asks for, where the caller is one."""
        if self._operator is None:
            raise AuthFailed(OFF)
        await check_operator(
            self._verifier,
            job_input,
            job_id=caller.job_id,
            is_trusted=caller.is_trusted,
            is_allowed=self._operator.terms.is_allowed,
        )
        self._check_model(request.model)
        answer = await self._operator.run(request, report)
        check_listing_size(answer, max_bytes=self._limits.max_response_bytes)
        return answer

    async def _health(self, request: HealthRequest) -> dict[str, Any]:
        """Return how the worker is, after a real forward where *request* asks for one."""
        check = await self._self_test.run() if request.check else None
        passed = self.is_healthy() and (check is None or check["passed"])
        return {
            "request_id": request.request_id,
            "status": "ok" if passed else "failed",
            **({} if check is None else {"check": check}),
            **asdict(self.served),
            **self._about,
            "uptime_s": round(time.monotonic() - self._started_s, 3),
            "counters": {**self._counters, **self.pipeline.counters()},
        }

    def is_healthy(self) -> bool:
        """Return whether the device still works, as far as is known."""
        return self.pipeline.engine.is_healthy() and not self._self_test.has_failed

    async def _embed(self, request: EmbedRequest, authorize: Authorize) -> dict[str, Any]:
        """Return one embedding or a list of results, as *request* asks."""
        started_s = time.perf_counter()
        done = await self._embed_all(request, authorize)
        if not request.single:
            answer = results_json(done, request, self.served, _batch_timings(done, started_s))
        elif isinstance(done[0], Rejected):
            raise done[0].error
        else:
            answer = embedding_json(done[0], request, self.served)
        check_size_after(answer, request, count=len(done), **self._size())
        return answer

    async def _openai(self, job_input: dict[str, Any], caller: _Caller) -> list[dict[str, Any]]:
        job_input = openai.with_auth_outside(job_input)
        if openai.parse_route(job_input) == "/v1/models":
            return [openai.models_response(model=self.served.model)]
        request = openai.parse_embeddings(
            job_input.get("openai_input"), dim=self.served.dim, max_batch_size=self._limits.max_batch_size
        )
        authorize = await self._authorizer(request, job_input, caller)
        self._check_model(request.model)
        started_s = time.perf_counter()
        done = await self._embed_all(request, authorize)
        for index, item in enumerate(done):
            if isinstance(item, Rejected):
                error = item.error
                raise type(error)(f"input[{index}]: {error.message}", retryable=error.retryable)
        embeddings = [embedding_json(item, request, self.served) for item in done]  # type: ignore[arg-type]
        timings = _batch_timings(done, started_s)
        answer = openai.embeddings_response(embeddings, timings, served=self.served)
        check_size_after(answer, request, count=len(done), **self._size())
        return [answer]

    def _size(self) -> dict[str, int]:
        return {"dim": self.served.dim, "max_bytes": self._limits.max_response_bytes}

    def _check_model(self, model: str | None) -> None:
        served = self.served
        names = {served.model, served.model_name, f"{served.model_name}/{served.pretrained}"}
        if model is not None and model not in names:
            raise ModelMismatch(f"model: this worker serves {served.model}; ask for that or leave model out")

    async def _authorizer(
        self, request: EmbedRequest | HealthRequest, job_input: dict[str, Any], caller: _Caller
    ) -> Authorize:
        """Judge a signature that covers the whole job now; return what judges each item's own.

        The former takes up to a second for a job of many megabytes, so a thread does it.
        v3 covers any job. Without it, a single image or text signs itself under the job's `auth`, each item
        of a batch under its own; `texts` and OpenAI's form have v3 only. `health` needs no signature.
        """
        verifier = self._verifier
        if verifier is None or caller.is_trusted or isinstance(request, HealthRequest):
            return _allow
        auth = job_input.get("auth")
        items_sign = (
            isinstance(request, BatchRequest) and auth is None and not openai.is_passthrough(job_input)
        )
        if covers_job(auth) or not (request.single or items_sign):
            await asyncio.to_thread(verifier.verify_job, job_input, job_id=caller.job_id)
            return _allow
        in_batch = not request.single
        return lambda item, signable: verifier.verify_item(item.auth, replace(signable, in_batch=in_batch))

    async def _embed_all(self, request: EmbedRequest, authorize: Authorize) -> list[Embedded | Rejected]:
        """Embed all items of *request* at once, in order; what fails stands as its error."""
        items = request.items()
        check_size_before(request, count=len(items), **self._size())
        self._counters["items"] += len(items)
        urls = (item.image_url for item in items if isinstance(item, Item) and item.image_url)
        downloads = JobDownloads(urls)
        tasks = [asyncio.ensure_future(self._embed_one(item, authorize, downloads)) for item in items]
        try:
            await asyncio.wait(tasks, timeout=self._limits.job_timeout_s)
            done = [self._outcome(item, task) for item, task in zip(items, tasks, strict=True)]
        finally:
            for task in tasks:
                task.cancel()
        self._counters["item_errors"] += sum(isinstance(item, Rejected) for item in done)
        self.watch(items, done)
        return done

    def _outcome(self, item: Item | Rejected, task: asyncio.Task[Embedded | Rejected]) -> Embedded | Rejected:
        """Return what became of *item*; one that is not done yet has run out of time."""
        if not task.done():
            late = Overloaded(f"the job took longer than {self._limits.job_timeout_s:g} s")
            return Rejected(item.request_id, late)
        fault = task.exception()
        return task.result() if fault is None else Rejected(item.request_id, _told(fault))

    async def _embed_one(
        self, item: Item | Rejected, authorize: Authorize, downloads: JobDownloads
    ) -> Embedded | Rejected:
        return item if isinstance(item, Rejected) else await self.pipeline.embed(item, authorize, downloads)


def _tell_nobody(_items: Sequence[Item | Rejected], _done: Sequence[Embedded | Rejected]) -> None:
    """Count nothing: who serves by a queue has no `/metrics`."""


def _allow(_item: Item, _signable: Signable) -> None:
    """Let every item pass: the worker asks for no signature, or one covers the whole job."""


def _told(fault: BaseException) -> WorkerError:
    """Return what the caller is told of *fault*."""
    if isinstance(fault, WorkerError):
        return fault
    if not isinstance(fault, Exception):
        raise fault
    log.error("an item failed in a way nobody foresaw", exc_info=fault)
    return InternalError("the worker failed on this item; its log says why")


def _batch_timings(done: Sequence[Embedded | Rejected], started_s: float) -> Timings:
    """Return each phase's longest over the items, and the time of the whole."""
    each = [asdict(item.timings) for item in done if isinstance(item, Embedded)]
    phases = ("download_ms", "decode_ms", "queue_ms", "inference_ms")
    longest = {phase: max((timings[phase] for timings in each), default=0.0) for phase in phases}
    return Timings(**longest, total_ms=(time.perf_counter() - started_s) * 1e3)
