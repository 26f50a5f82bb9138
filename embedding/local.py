"""A client of the model in this process, for one command: no service, no queue, no signature."""

from __future__ import annotations

import asyncio
import io
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any, Final

from embedding.client.clients import AsyncClient
from embedding.client.errors import JobFailed
from embedding.client.plain import Client
from embedding.errors import StartupError, WorkerError
from embedding.settings import Settings


if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedding.actions import Actions

MAX_REQUEST_BYTES: Final = 1 << 30  # memory is all that a request passes through


def local_client() -> Client:
    """Return a client of the model that the environment names, loaded now.

    Raises StartupError if no model is named; leaves by SystemExit 1 if it cannot be loaded.
    """
    settings = Settings.from_env(overrides={"RUNPOD_SERVERLESS": "0", "WORKER_MODE": "queue"})
    if settings.model_path is None and settings.clip_model_name is None and not settings.allow_demo_model:
        raise StartupError(
            "no model is chosen, and the embedded demo model knows only drawn shapes: set CLIP_MODEL_NAME "
            "and CLIP_PRETRAINED, or MODEL_PATH; ALLOW_DEMO_MODEL=1 takes the demo model"
        )
    from embedding.serve.start import Worker, start  # noqa: PLC0415  the worker, which imports torch

    with redirect_stdout(io.StringIO()):  # a worker tells of itself; a command answers what it was asked
        worker = start(lambda: settings, ())
    assert isinstance(worker, Worker)
    return Client(AsyncClient(LocalTransport(worker.actions), max_batch_size=settings.max_batch_size))


class LocalTransport:
    """Hands the input of a job to the actions of a worker in this process."""

    max_request_bytes = MAX_REQUEST_BYTES

    def __init__(self, actions: Actions) -> None:
        self._actions = actions

    async def run(self, job_input: Mapping[str, Any]) -> Any:
        """Return the answer to *job_input*. Raises JobFailed."""
        try:
            return await self._actions.run(dict(job_input), is_trusted=True)
        except WorkerError as error:
            raise JobFailed(error.code, error.message, retryable=error.retryable) from None

    async def health(self) -> Any:
        """Return what the worker says of itself."""
        return await self.run({"action": "health"})

    async def aclose(self) -> None:
        """End nothing: the engine ends with the process."""
        await asyncio.sleep(0)
