"""The queue transport: jobs from RunPod's SDK in, answers that the SDK cannot lose out.

What SDK 1.12.0 does, and what is done about it here: an `error` that is not a string makes a job COMPLETED
without output, so errors are strings; an exception is sent to the caller with its traceback, so
every exception is answered here; a result that is not JSON is dropped silently, so answers
are plain JSON; a concurrency that changes drains the worker first, so it is constant; and the default
concurrency of 1 carries one job a second.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from embedding.contract.requests import request_id_of
from embedding.contract.responses import failure_json
from embedding.errors import InternalError, WorkerError
from embedding.serve import logs, progress
from embedding.serve.events import SILENT, Tell
from embedding.serve.sdk import SDK_VERSION, import_sdk


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from embedding.actions import Actions
    from embedding.settings import JobLoopName

    Handler = Callable[[dict[str, Any]], Awaitable[Any]]

log = logging.getLogger(__name__)


def make_handler(actions: Actions, tell: Tell = SILENT, *, is_queue: bool = False) -> Handler:
    """Return the function that answers one job, `{"id": …, "input": {…}}`, and is counted by *tell*.

    *is_queue* says that jobs, and so their ids, come from the platform, which is told how far a long one is;
    else the caller chooses the id, and it says nothing about whether a signed job was delivered before.
    It never raises, but for the cancellation that the SDK sends when a caller cancels the job.
    """

    async def handle(job: dict[str, Any]) -> Any:
        with tell.job():
            answer = await answer_to(job)
            tell.answer(answer)
            return answer

    async def answer_to(job: dict[str, Any]) -> Any:
        job_input, job_id = job.get("input"), job.get("id")
        logs.job_id.set(job_id)
        try:
            report = progress.reporter(job) if is_queue else None
            answer = await actions.run(job_input, job_id=job_id if is_queue else None, report=report)
        except WorkerError as error:
            log.info("%s: %s", error.code, error.message)
            answer = failure_json(error, request_id_of(job_input))
        except Exception:
            log.exception("the job failed in a way nobody foresaw")
            unforeseen = InternalError("the worker failed on this job; its log says why")
            answer = failure_json(unforeseen, request_id_of(job_input))
        if isinstance(answer, dict) and not actions.is_healthy():
            log.error("the device has failed: asking the platform for a fresh worker")
            answer["refresh_worker"] = True
        return answer

    return handle


def run_sdk(
    handler: Handler,
    *,
    concurrency: int,
    check_device: Callable[[], object],
    job_loop: JobLoopName,
    on_stop: Callable[[], None] = lambda: None,
) -> None:
    """Hand *handler* to RunPod's SDK, which takes jobs until the platform stops it.

    With *job_loop* "event" it takes them by our loop (see `loop`), with "sdk" by its own. *on_stop* is called
    when the platform stops it, by our loop alone: to end what the last jobs would wait for too long.
    In its local modes the SDK leaves by SystemExit: 0 if the one job succeeded, else 1. On the platform
    *check_device* runs before the first job; if it raises, the SDK reports the worker unhealthy and ends it.
    """
    runpod = import_sdk()
    if job_loop == "event":
        _install_loop(runpod.__version__)

    runpod.serverless.register_fitness_check(check_device)
    runpod.serverless.start(
        {"handler": handler, "concurrency_modifier": lambda _current: concurrency, "on_stop": on_stop}
    )


def _install_loop(sdk_version: str) -> None:
    if sdk_version != SDK_VERSION:
        log.warning("the job loop is for SDK %s, this is %s: using the SDK's", SDK_VERSION, sdk_version)
        return
    from embedding.serve import loop  # noqa: PLC0415  imports the SDK

    loop.install()
