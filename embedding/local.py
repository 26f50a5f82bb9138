"""A client of the model in this process, for one command: no service, no queue, no signature."""

from __future__ import annotations

import asyncio
import io
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any, Final

from embedding.client.clients import AsyncClient
from embedding.client.errors import JobFailed
from embedding.client.plain import Client
from embedding.errors import WorkerError


if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedding.actions import Actions
    from embedding.settings import Settings

MAX_REQUEST_BYTES: Final = 1 << 30  # memory is all that a request passes through


def local_client(settings: Settings) -> Client:
    """Return a client of the model that *settings* name, loaded now.

    Leaves by SystemExit 1 if it cannot be loaded.
    """
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
