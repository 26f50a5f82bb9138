"""Rows to the engine in this process: the worker's own model, decoding and downloads, without a job around.

Threads read, decode and hand over a job's rows, then wait for its vectors, while other threads decode the
next: no event loop, no JSON and no base64 in between. What a stranger's picture may cost is bounded as in the
worker.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Self

from embedding.client.bulk.errors import BulkError
from embedding.client.bulk.flow import Answer
from embedding.client.bulk.folder import Model
from embedding.client.bulk.window import Window
from embedding.client.errors import ItemError
from embedding.client.inputs import unreadable
from embedding.errors import WorkerError


if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future
    from types import TracebackType

    from embedding.client.bulk.parts import Outcome
    from embedding.client.bulk.rows import Row
    from embedding.settings import Settings

BATCH_BYTES: Final = 64 << 20
JOBS_WAITING: Final = 8  # for the device, beside those being decoded: 2 cost a tenth of the speed
MOST_DECODERS: Final = 8


class Local:
    """A backend: the model that *settings* name. Raises StartupError if it cannot be loaded."""

    def __init__(self, settings: Settings, *, batch_size: int) -> None:
        self._load(settings)
        decoders = min(MOST_DECODERS, os.cpu_count() or 1)
        self.max_items, self.max_bytes = batch_size, BATCH_BYTES
        self.window = Window(decoders + JOBS_WAITING, size=decoders + JOBS_WAITING)
        self._jobs = ThreadPoolExecutor(
            decoders + JOBS_WAITING, "job", initializer=self._set_threads, initargs=(1,)
        )
        self._downloads = ThreadPoolExecutor(settings.download_concurrency, "download")

    def _load(self, settings: Settings) -> None:
        from embedding.serve.diagnostics import Phases  # noqa: PLC0415  the worker, which imports torch
        from embedding.serve.loading import Loading  # noqa: PLC0415

        loading = Loading(settings, Phases())
        import torch  # noqa: PLC0415

        from embedding.contract.encoding import normalize  # noqa: PLC0415
        from embedding.intake.image import ImageLimits, decode_image  # noqa: PLC0415
        from embedding.intake.memory import MemoryBudget  # noqa: PLC0415
        from embedding.serve.start import fetcher_of  # noqa: PLC0415

        self._set_threads = torch.set_num_threads
        self._normalize, self._decode_image = normalize, decode_image
        self._limits = ImageLimits(max_bytes=settings.max_image_bytes)
        self._memory = MemoryBudget(self._limits.max_memory_bytes)
        self._fetch = fetcher_of(settings).fetch
        self._engine = loading.engine
        self._model = loading.engine.loaded.result()
        identity = self._model.identity
        self._made_by = Model(identity.fingerprint, settings.served_name or identity.model_name)

    async def embed(self, rows: Sequence[Row]) -> Answer:
        """Return what became of *rows*. Raises BulkError if the device has failed."""
        outcomes = await asyncio.get_running_loop().run_in_executor(self._jobs, self._embed, rows)
        if not self._engine.is_healthy():
            raise BulkError("the device has failed: run the same command to go on")
        failed = all(isinstance(outcome, ItemError) for outcome in outcomes)
        return Answer(outcomes, None if failed else self._made_by)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._jobs.shutdown()
        self._downloads.shutdown(cancel_futures=True)

    def _embed(self, rows: Sequence[Row]) -> list[Outcome]:
        coming = {
            index: self._downloads.submit(self._fetch, str(row.value))
            for index, row in enumerate(rows)
            if row.kind == "url"
        }
        submitted = [self._submitted(index, row, coming.get(index)) for index, row in enumerate(rows)]
        return [self._outcome(index, work) for index, work in enumerate(submitted)]

    def _submitted(self, index: int, row: Row, download: Future[bytes] | None) -> Future[Any] | ItemError:
        """Return the features that the engine will make of *row*, or why it will not."""

        def submit() -> Future[Any]:
            if row.kind == "text":
                return self._engine.submit(
                    "text", self._model.tokenizer.tokenize(str(row.value), truncate=True)
                )
            data = row.picture() if download is None else download.result()
            pixels = self._decode_image(
                data, preprocess=self._model.preprocess, limits=self._limits, memory=self._memory
            )
            return self._engine.submit("image", pixels)

        return _or_error(index, submit)

    def _outcome(self, index: int, work: Future[Any] | ItemError) -> Outcome:
        if isinstance(work, ItemError):
            return work
        return _or_error(index, lambda: self._normalize(work.result().vector))


def _or_error(index: int, make: Callable[[], Any]) -> Any:
    """Return what *make* does, or the error of the item at *index*."""
    try:
        return make()
    except OSError as fault:
        return unreadable(index, fault)
    except WorkerError as fault:
        return ItemError(index, fault.code, fault.message, fault.retryable)
