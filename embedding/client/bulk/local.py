"""Rows to the engine in this process: the worker's own model, decoding and downloads, without a job around.

Threads decode a job's rows and hand them over together, and the event loop waits for their vectors: no JSON
and no base64 in between. Small pictures, which spend their time under the interpreter's lock, are decoded by
one thread at a time: on two cores and 96 pixels that is an eighth faster than two, which wait for each other.
What a stranger's picture may cost is bounded as in the worker.
"""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import numpy as np

from embedding.client.bulk.errors import BulkError
from embedding.client.bulk.flow import Answer
from embedding.client.bulk.folder import Model
from embedding.client.bulk.window import Window
from embedding.client.errors import ItemError
from embedding.client.inputs import unreadable
from embedding.errors import WorkerError


if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Future
    from types import TracebackType

    from embedding.client.bulk.parts import Outcome
    from embedding.client.bulk.rows import Row
    from embedding.settings import Settings

BATCH_BYTES: Final = 64 << 20
JOBS_WAITING: Final = 8  # for a decoder or the device
MOST_DECODERS: Final = 8
SMALL_BYTES: Final = 4_096  # of a picture, on average; 640 pixels are a quarter faster with two threads
MOST_ITEMS: Final = 64  # in a job: all that wait together are as many as the engine lets wait


class Local:
    """A backend: the model that *settings* name. Raises StartupError if it cannot be loaded."""

    def __init__(self, settings: Settings, *, batch_size: int) -> None:
        self._load(settings)
        decoders = min(MOST_DECODERS, os.cpu_count() or 1)
        self.max_items, self.max_bytes = min(batch_size, MOST_ITEMS), BATCH_BYTES
        self.window = Window(decoders + JOBS_WAITING, size=decoders + JOBS_WAITING)
        self._decoders = ThreadPoolExecutor(decoders, "decode", initializer=self._set_threads, initargs=(1,))
        self._turn = threading.Lock()
        self._downloads = ThreadPoolExecutor(settings.download_concurrency, "download")

    def _load(self, settings: Settings) -> None:
        from embedding.serve.diagnostics import Phases  # noqa: PLC0415  the worker, which imports torch
        from embedding.serve.loading import Loading  # noqa: PLC0415

        loading = Loading(settings, Phases())
        import torch  # noqa: PLC0415

        from embedding.intake.image import ImageLimits, decode_image  # noqa: PLC0415
        from embedding.intake.memory import MemoryBudget  # noqa: PLC0415
        from embedding.serve.start import fetcher_of  # noqa: PLC0415

        self._set_threads = torch.set_num_threads
        self._decode_image = decode_image
        self._limits = ImageLimits(max_bytes=settings.max_image_bytes)
        self._memory = MemoryBudget(self._limits.max_memory_bytes)
        self._fetch = fetcher_of(settings).fetch
        self._engine = loading.engine
        self._model = loading.engine.loaded.result()
        identity = self._model.identity
        self._made_by = Model(identity.fingerprint, settings.served_name or identity.model_name)
        gc.collect()
        gc.freeze()  # torch's million objects are looked through for garbage over and over else

    async def embed(self, rows: Sequence[Row]) -> Answer:
        """Return what became of *rows*. Raises BulkError if the device has failed."""
        downloads = {
            index: self._downloads.submit(self._fetch, str(row.value))
            for index, row in enumerate(rows)
            if row.kind == "url"
        }
        if downloads:
            await asyncio.wait([asyncio.wrap_future(download) for download in downloads.values()])
        loop = asyncio.get_running_loop()
        submitted = await loop.run_in_executor(self._decoders, self._submit, rows, downloads)
        for work in reversed(submitted):  # the last is done last, most often, so one wait is enough
            if not isinstance(work, ItemError) and not work.done():
                await asyncio.wait([asyncio.wrap_future(work)])
        outcomes = _outcomes(submitted)
        if not self._engine.is_healthy():
            raise BulkError("the device has failed: run the same command to go on")
        failed = all(isinstance(outcome, ItemError) for outcome in outcomes)
        return Answer(outcomes, None if failed else self._made_by)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._decoders.shutdown(cancel_futures=True)
        self._downloads.shutdown(cancel_futures=True)

    def _submit(
        self, rows: Sequence[Row], downloads: Mapping[int, Future[bytes]]
    ) -> list[Future[Any] | ItemError]:
        """Return the features that the engine will make of *rows*, or why it will not.

        All are handed over together: one by one they would run in small batches, as fast as they are decoded.
        """
        with nullcontext() if downloads or _are_large(rows) else self._turn:
            ready = [
                _or_error(index, partial(self._ready, row, downloads.get(index)))
                for index, row in enumerate(rows)
            ]
        return [
            work if isinstance(work, ItemError) else _or_error(index, partial(self._engine.submit, *work))
            for index, work in enumerate(ready)
        ]

    def _ready(self, row: Row, download: Future[bytes] | None) -> tuple[Literal["image", "text"], Any]:
        """Return *row* as the engine takes it."""
        if row.kind == "text":
            return "text", self._model.tokenizer.tokenize(str(row.value), truncate=True)
        data = row.picture() if download is None else download.result()
        pixels = self._decode_image(
            data, preprocess=self._model.preprocess, limits=self._limits, memory=self._memory
        )
        return "image", pixels


def _are_large(rows: Sequence[Row]) -> bool:
    """Return whether decoding *rows* takes long without the interpreter's lock."""
    return sum(row.size_bytes for row in rows) >= SMALL_BYTES * len(rows)


def _outcomes(submitted: Sequence[Future[Any] | ItemError]) -> list[Outcome]:
    """Return what became of rows that are done: vectors of length 1, or errors."""
    outcomes: list[Any] = [
        work if isinstance(work, ItemError) else _or_error(index, lambda: work.result().vector)  # noqa: B023
        for index, work in enumerate(submitted)
    ]
    places = [index for index, outcome in enumerate(outcomes) if not isinstance(outcome, ItemError)]
    if places:
        wide = np.stack([outcomes[index] for index in places], dtype=np.float64)
        vectors = (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)
        for index, vector in zip(places, vectors, strict=True):
            outcomes[index] = vector
    return outcomes


def _or_error(index: int, make: Callable[[], Any]) -> Any:
    """Return what *make* does, or the error of the item at *index*."""
    try:
        return make()
    except OSError as fault:
        return unreadable(index, fault)
    except WorkerError as fault:
        return ItemError(index, fault.code, fault.message, fault.retryable)
