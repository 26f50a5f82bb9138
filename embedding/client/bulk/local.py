"""Rows to the engine in this process: the worker's own model, decoding and downloads, without a job around.

Other processes decode a job's pictures (`intake.decoders`), this one hands them to the engine together, and
the event loop waits for their vectors: no JSON and no base64 in between. What a stranger's picture may cost
is bounded as in the worker, its memory at most about twice as high.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor
from contextlib import contextmanager
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
    from collections.abc import Iterable, Iterator, Sequence
    from concurrent.futures import Future
    from types import TracebackType

    from embedding.client.bulk.parts import Outcome
    from embedding.client.bulk.rows import Row
    from embedding.intake.decoders import Decoded
    from embedding.settings import Settings

    Work = tuple[Literal["image", "text"], Any]

BATCH_BYTES: Final = 64 << 20
MOST_ITEMS: Final = 64  # in a job
JOBS_WAITING: Final = 8  # for a decoder or the device, beside those that are being decoded
MOST_DECODERS: Final = 32


class Local:
    """A backend: the model that *settings* name. Raises StartupError if it or its decoders cannot start."""

    def __init__(self, settings: Settings, *, batch_size: int) -> None:
        from embedding.intake.decoders import Decoders, prepare  # noqa: PLC0415  the worker, as all of these
        from embedding.intake.limits import ImageLimits  # noqa: PLC0415
        from embedding.serve.diagnostics import Phases  # noqa: PLC0415
        from embedding.serve.loading import Loading  # noqa: PLC0415
        from embedding.serve.start import fetcher_of  # noqa: PLC0415

        with _starting():
            prepare()
        loading = Loading(settings, Phases())
        self._fetch = fetcher_of(settings).fetch
        self._engine = loading.engine
        atexit.register(self._engine.close)  # torch aborts a process that ends while a model loads or runs
        self._model = self._engine.loaded.result()
        count = min(MOST_DECODERS, loading.cpu_threads)
        limits = ImageLimits(max_bytes=settings.max_image_bytes)
        with _starting():
            self._decoders = Decoders(count, self._model.preprocess, limits)
        self._downloads = ThreadPoolExecutor(settings.download_concurrency, "download")
        self.max_items, self.max_bytes = min(batch_size, MOST_ITEMS), BATCH_BYTES
        self.window = Window(count + JOBS_WAITING, size=count + JOBS_WAITING)
        self._places = asyncio.Semaphore(self._engine.max_waiting // self.max_items)
        identity = self._model.identity
        self._made_by = Model(identity.fingerprint, settings.served_name or identity.model_name)
        gc.collect()
        gc.freeze()  # torch's million objects are looked through for garbage over and over else

    async def embed(self, rows: Sequence[Row]) -> Answer:
        """Return what became of *rows*. Raises BulkError if the device or a decoder has failed."""
        ready = await self._ready(rows)
        async with self._places:
            outcomes = await self._forward(ready)
        if not self._engine.is_healthy():
            raise BulkError("the device has failed: run the same command to go on")
        failed = all(isinstance(outcome, ItemError) for outcome in outcomes)
        return Answer(_normalized(outcomes), None if failed else self._made_by)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._decoders.close()
        self._downloads.shutdown(cancel_futures=True)

    async def _ready(self, rows: Sequence[Row]) -> list[Work | ItemError]:
        """Return *rows* as the engine takes them, or why it will not."""
        found = await self._downloaded(rows)
        texts = {index: str(row.value) for index, row in enumerate(rows) if row.kind == "text"}
        pictures = {
            index: found.get(index, row)
            for index, row in enumerate(rows)
            if index not in texts and not isinstance(found.get(index), Exception)
        }
        if pictures:
            found |= zip(pictures, await self._decoded(list(pictures.values())), strict=True)
        if texts:
            found |= zip(texts, await asyncio.to_thread(self._tokenized, texts.values()), strict=True)
        return [
            _error_of(index, found[index])
            if isinstance(found[index], Exception)
            else ("text" if index in texts else "image", found[index])
            for index in range(len(rows))
        ]

    async def _downloaded(self, rows: Sequence[Row]) -> dict[int, Any]:
        """Return the bytes behind each URL, or why they did not come, by the row's place."""
        downloads = {
            index: asyncio.wrap_future(self._downloads.submit(self._fetch, str(row.value)))
            for index, row in enumerate(rows)
            if row.kind == "url"
        }
        return dict(
            zip(downloads, await asyncio.gather(*downloads.values(), return_exceptions=True), strict=True)
        )

    async def _decoded(self, pictures: Sequence[bytes | Row]) -> Sequence[Decoded]:
        try:
            return await asyncio.wrap_future(self._decoders.submit(pictures))
        except (BrokenExecutor, EOFError, OSError):  # the last two where none could be forked
            raise BulkError(
                "a process that decodes pictures was ended from outside, for want of memory perhaps: run the "
                "same command to go on"
            ) from None

    def _tokenized(self, texts: Iterable[str]) -> list[Any]:
        """Return the tokens of each text, or why it cannot be read."""

        def tokens(text: str) -> Any:
            try:
                return self._model.tokenizer.tokenize(text, truncate=True)
            except WorkerError as fault:
                return fault

        return [tokens(text) for text in texts]

    async def _forward(self, ready: Sequence[Work | ItemError]) -> list[Outcome]:
        """Return the features that the engine makes of what is ready; all is handed over together.

        One by one, items would run in small batches, as fast as they come.
        """
        running: list[Future[Any] | ItemError] = [
            work if isinstance(work, ItemError) else self._engine.submit(*work) for work in ready
        ]
        futures = [work for work in running if not isinstance(work, ItemError)]
        try:
            for future in reversed(futures):  # the last is done last, most often, so one wait is enough
                if not future.done():
                    await asyncio.wait([asyncio.wrap_future(future)])
        finally:
            for future in futures:
                future.cancel()  # of a job that was cancelled; else the engine would run it before it ends
        return [
            work
            if isinstance(work, ItemError)
            else work.result().vector
            if (fault := work.exception()) is None
            else _error_of(index, fault)
            for index, work in enumerate(running)
        ]


@contextmanager
def _starting() -> Iterator[None]:
    """Raise a BulkError for an OSError within: a TMPDIR too long for a socket, no shared memory."""
    try:
        yield
    except OSError as fault:
        told = f"no process can be started to decode pictures ({fault}): see to TMPDIR and /dev/shm"
        raise BulkError(told) from None


def _normalized(outcomes: list[Outcome]) -> list[Outcome]:
    """Return *outcomes* with vectors of length 1."""
    vectors = [outcome for outcome in outcomes if not isinstance(outcome, ItemError)]
    if not vectors:
        return outcomes
    wide = np.stack(vectors, dtype=np.float64)
    made = iter((wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32))
    return [outcome if isinstance(outcome, ItemError) else next(made) for outcome in outcomes]


def _error_of(index: int, fault: BaseException) -> ItemError:
    """Return the error of the row at *index*. Raises *fault* if it is none of a row's."""
    if isinstance(fault, OSError):
        return unreadable(index, fault)
    if isinstance(fault, WorkerError):
        return ItemError(index, fault.code, fault.message, fault.retryable)
    raise fault
