"""An item's way: from a URL, base64 or a text to its features.

Three stages, each bounded, so that memory is: downloads (I/O threads), decoding (a few threads that
release the interpreter lock, and share a budget of memory), and the engine's queue. An item keeps its place
in a stage until the next has room, which holds back the stage before it. Places are taken in one order: the
job's downloads, all downloads, decoding, room before the engine. Nothing slow runs on the event loop.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import torch

from embedding.contract.canonical import Signable
from embedding.contract.responses import Embedded, Timings
from embedding.intake.base64_image import decode_base64
from embedding.intake.image import decode_image
from embedding.intake.limits import ImageLimits
from embedding.intake.memory import MemoryBudget


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np
    import numpy.typing as npt

    from embedding.contract.requests import Item
    from embedding.intake.fetch import Fetcher
    from embedding.intake.text import Tokens
    from embedding.model.embedder import EmbeddingModel
    from embedding.model.engine import Engine, Features, Kind

    # Judges the signature of one item, in any thread; raises AuthFailed.
    Authorize = Callable[[Item, Signable], None]

MAX_DECODE_THREADS: Final = 8
MAX_JOB_DOWNLOADS: Final = 16  # at once, so that one job of slow URLs leaves room for the others
INLINE_TEXT_CHARS: Final = 500  # a text this short is tokenised faster than a thread is woken


@dataclass(frozen=True, slots=True)
class PipelineLimits:
    """How wide the stages are, and how large an image may be."""

    max_image_bytes: int
    download_concurrency: int
    decode_threads: int = min(MAX_DECODE_THREADS, os.cpu_count() or 1)


class JobDownloads:
    """The downloads of one job: equal URLs are fetched once, and kept until the last item is done."""

    def __init__(self, urls: Iterable[str]) -> None:
        """Expect each of *urls* to be left once, whatever becomes of its item."""
        self.places = asyncio.Semaphore(MAX_JOB_DOWNLOADS)
        self._users = Counter(urls)
        self._fetches: dict[str, asyncio.Future[bytes]] = {}

    async def get(self, url: str, start: Callable[[], asyncio.Future[bytes]]) -> bytes:
        """Return the bytes behind *url*; the first to ask starts the download."""
        if url not in self._fetches:
            self._fetches[url] = start()
        return await asyncio.shield(self._fetches[url])  # one cancelled item must not cancel its twins

    def leave(self, url: str) -> None:
        """Give up one use of *url*; the last drops its bytes, or its download if that has not begun."""
        self._users[url] -= 1
        if self._users[url] <= 0 and url in self._fetches:
            self._fetches.pop(url).cancel()


class Pipeline:
    """All stages, shared by all jobs of a worker."""

    def __init__(self, engine: Engine[EmbeddingModel], fetcher: Fetcher, limits: PipelineLimits) -> None:
        """Start the threads; waits for *engine* to be loaded, and raises what that raised."""
        self.engine = engine
        self._model = engine.loaded.result()
        self._fetcher = fetcher
        self._image_limits = ImageLimits(max_bytes=limits.max_image_bytes)
        self._download_threads = ThreadPoolExecutor(limits.download_concurrency, "download")
        self._decode_memory = MemoryBudget(self._image_limits.max_memory_bytes)
        self._decode_threads = ThreadPoolExecutor(
            limits.decode_threads, "decode", initializer=torch.set_num_threads, initargs=(1,)
        )
        self._downloading = asyncio.Semaphore(limits.download_concurrency)
        self._decoding = asyncio.Semaphore(2 * limits.decode_threads)
        self._room = asyncio.Semaphore(engine.max_waiting)

    async def embed(self, item: Item, authorize: Authorize, downloads: JobDownloads) -> Embedded:
        """Return what became of *item*: its features, not normalised, and where its time went.

        Raises the WorkerError that the item deserves. Cancelling drops whatever of its work has not begun.
        """
        started_s = time.perf_counter()
        if item.text is not None:
            done = await self._embed_text(item, item.text, authorize)
        else:
            done = await self._embed_image(item, authorize, downloads)
        return replace(done, timings=replace(done.timings, total_ms=_ms_since(started_s)))

    async def _embed_text(self, item: Item, text: str, authorize: Authorize) -> Embedded:
        authorize(item, Signable(text=text))
        started_s = time.perf_counter()
        if len(text) <= INLINE_TEXT_CHARS:
            tokens = self._tokenize(text, item)
        else:
            async with self._decoding:
                tokens = await self._in_decode_thread(self._tokenize, text, item)
        decode_ms = _ms_since(started_s)
        async with self._room:
            features = await self._forward("text", tokens)
        return Embedded(
            item.request_id,
            item.normalize,
            features.vector,
            Timings(0.0, decode_ms, features.queue_ms, features.inference_ms),
            tokens=min(tokens.count, len(tokens.ids)),
            truncated=tokens.truncated,
        )

    async def _embed_image(self, item: Item, authorize: Authorize, downloads: JobDownloads) -> Embedded:
        pixels, download_ms, decode_ms = await self._pixels_and_room(item, authorize, downloads)
        try:
            features = await self._forward("image", pixels)
        finally:
            self._room.release()
        timings = Timings(download_ms, decode_ms, features.queue_ms, features.inference_ms)
        return Embedded(item.request_id, item.normalize, features.vector, timings)

    async def _pixels_and_room(
        self, item: Item, authorize: Authorize, downloads: JobDownloads
    ) -> tuple[npt.NDArray[np.uint8], float, float]:
        """Return the picture (S, S, 3) uint8, the milliseconds of download and decoding, and a place taken.

        The caller releases `_room`. The places of the earlier stages are held until then, since their
        bytes are; leaving them suspends nothing, so no cancellation can come between.
        """
        started_s = time.perf_counter()
        data, download_ms = None, 0.0
        async with AsyncExitStack() as places:
            if item.image_url is not None:
                places.callback(downloads.leave, item.image_url)
                authorize(item, Signable(image_url=item.image_url))
                await places.enter_async_context(downloads.places)
                await places.enter_async_context(self._downloading)
                data = await downloads.get(item.image_url, lambda: self._start_download(str(item.image_url)))
                download_ms = _ms_since(started_s)
            with self._coming():
                await places.enter_async_context(self._decoding)
                pixels = await self._in_decode_thread(self._decode, item, data, authorize)
            decode_ms = _ms_since(started_s) - download_ms
            await self._room.acquire()
        return pixels, download_ms, decode_ms

    @contextmanager
    def _coming(self) -> Iterator[None]:
        """Tell the engine of an item that is about to reach it."""
        self.engine.coming += 1
        try:
            yield
        finally:
            self.engine.coming -= 1

    def _start_download(self, url: str) -> asyncio.Future[bytes]:
        return asyncio.get_running_loop().run_in_executor(
            self._download_threads, _carried, self._fetcher.fetch, url
        )

    def _decode(self, item: Item, data: bytes | None, authorize: Authorize) -> npt.NDArray[np.uint8]:
        if data is None:
            data = decode_base64(str(item.image_base64), max_bytes=self._image_limits.max_bytes)
            authorize(item, Signable(image_bytes=data))
        return decode_image(
            data, preprocess=self._model.preprocess, limits=self._image_limits, memory=self._decode_memory
        )

    def _tokenize(self, text: str, item: Item) -> Tokens:
        return self._model.tokenizer.tokenize(text, truncate=item.truncate)

    async def _in_decode_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(
            self._decode_threads, _carried, function, *args
        )

    async def _forward(self, kind: Kind, value: Any) -> Features:
        return await asyncio.wrap_future(self.engine.submit(kind, value))


def _carried(function: Callable[..., Any], *args: Any) -> Any:
    """Call *function*; a StopIteration becomes a RuntimeError, since no future can carry it to its waiter."""
    try:
        return function(*args)
    except StopIteration as exc:
        raise RuntimeError from exc


def _ms_since(started_s: float) -> float:
    return (time.perf_counter() - started_s) * 1e3
