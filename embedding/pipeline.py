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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

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
DECODES_AHEAD: Final = 15  # for each thread, which has work while the event loop is busy with a large job
MAX_JOB_DOWNLOADS: Final = 16  # at once, so that one job of slow URLs leaves room for the others
INLINE_TEXT_CHARS: Final = 500  # a text this short is tokenised faster than a thread is woken

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PipelineLimits:
    """How wide the stages are, and how large an image may be."""

    max_image_bytes: int
    download_concurrency: int
    decode_threads: int = min(MAX_DECODE_THREADS, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class Made:
    """What the stages after the download made of one input, whichever items it is for."""

    features: Features
    decode_ms: float
    tokens: int | None = None
    truncated: bool | None = None

    def for_item(self, item: Item, *, download_ms: float = 0.0) -> Embedded:
        """Return the outcome of *item*, which made it."""
        features = self.features
        timings = Timings(download_ms, self.decode_ms, features.queue_ms, features.inference_ms)
        return Embedded(
            item.request_id, item.normalize, features.vector, timings, self.tokens, self.truncated
        )


class JobDownloads:
    """The downloads of one job: equal URLs are fetched once, and kept until the last item is done."""

    def __init__(self, urls: Iterable[str]) -> None:
        """Expect each of *urls* to be left once, whatever becomes of its item."""
        self.places = asyncio.Semaphore(MAX_JOB_DOWNLOADS)
        self._users = Counter(urls)
        self._fetches: dict[str, asyncio.Future[Any]] = {}

    async def get(self, url: str, start: Callable[[], asyncio.Future[T]]) -> T:
        """Return what was downloaded from *url*; the first to ask starts the download."""
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
        self._decoding = asyncio.Semaphore((1 + DECODES_AHEAD) * limits.decode_threads)
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
        return replace(done, timings=replace(done.timings, total_ms=ms_since(started_s)))

    def counters(self) -> dict[str, int]:
        """Return what `health` tells of the stages."""
        return {"waiting_items": self.engine.depth()}

    async def _embed_text(self, item: Item, text: str, authorize: Authorize) -> Embedded:
        authorize(item, Signable(text=text))
        return (await self._make_text(text, truncate=item.truncate)).for_item(item)

    async def _make_text(self, text: str, *, truncate: bool) -> Made:
        started_s = time.perf_counter()
        if len(text) <= INLINE_TEXT_CHARS:
            tokens = self._tokenize(text, truncate)
        else:
            async with self._decoding:
                tokens = await self._in_decode_thread(self._tokenize, text, truncate)
        decode_ms = ms_since(started_s)
        async with self._room:
            features = await self._forward("text", tokens)
        return Made(features, decode_ms, min(tokens.count, len(tokens.ids)), tokens.truncated)

    async def _embed_image(self, item: Item, authorize: Authorize, downloads: JobDownloads) -> Embedded:
        pixels, download_ms, decode_ms = await self._pixels_and_room(item, authorize, downloads)
        return (await self._make_image(pixels, decode_ms)).for_item(item, download_ms=download_ms)

    async def _make_image(self, pixels: npt.NDArray[np.uint8], decode_ms: float) -> Made:
        """Return what the device makes of *pixels* (S, S, 3) uint8; releases the place in `_room`."""
        try:
            return Made(await self._forward("image", pixels), decode_ms)
        finally:
            self._room.release()

    async def _pixels_and_room(
        self, item: Item, authorize: Authorize, downloads: JobDownloads
    ) -> tuple[npt.NDArray[np.uint8], float, float]:
        """Return the picture (S, S, 3) uint8, the milliseconds of download and decoding, and a place taken.

        The caller releases `_room`. The places of the earlier stages are held until then, since their
        bytes are; leaving them suspends nothing, so no cancellation can come between.
        """
        started_s = time.perf_counter()
        data, download_ms = None, 0.0
        with ExitStack() as places:
            if item.image_url is not None:
                places.callback(downloads.leave, item.image_url)
                authorize(item, Signable(image_url=item.image_url))
                data = await self._download(item.image_url, self._fetcher.fetch, downloads, places)
                download_ms = ms_since(started_s)
            with self._coming():
                await take(self._decoding, places)
                pixels = await self._in_decode_thread(self._decode, item, data, authorize)
            decode_ms = ms_since(started_s) - download_ms
            await self._room.acquire()
        return pixels, download_ms, decode_ms

    async def _download(
        self, url: str, fetch: Callable[[str], T], downloads: JobDownloads, places: ExitStack
    ) -> T:
        """Return what *fetch* gives for *url* in a download thread; *places* gives back what it takes."""
        await take(downloads.places, places)
        await take(self._downloading, places)
        return await downloads.get(url, lambda: _in_thread(self._download_threads, fetch, url))

    @contextmanager
    def _coming(self) -> Iterator[None]:
        """Tell the engine of an item that is about to reach it."""
        self.engine.coming += 1
        try:
            yield
        finally:
            self.engine.coming -= 1

    def _decode(self, item: Item, data: bytes | None, authorize: Authorize) -> npt.NDArray[np.uint8]:
        return self._picture(self._own_bytes(item, authorize) if data is None else data)

    def _own_bytes(self, item: Item, authorize: Authorize) -> bytes:
        """Return the bytes that *item* itself carries, once they are authorized."""
        data = decode_base64(str(item.image_base64), max_bytes=self._image_limits.max_bytes)
        authorize(item, Signable(image_bytes=data))
        return data

    def _picture(self, data: bytes) -> npt.NDArray[np.uint8]:
        return decode_image(
            data, preprocess=self._model.preprocess, limits=self._image_limits, memory=self._decode_memory
        )

    def _tokenize(self, text: str, truncate: bool) -> Tokens:  # noqa: FBT001  run_in_executor knows no keywords
        return self._model.tokenizer.tokenize(text, truncate=truncate)

    async def _in_decode_thread(self, function: Callable[..., T], *args: Any) -> T:
        return await _in_thread(self._decode_threads, function, *args)

    async def _forward(self, kind: Kind, value: Any) -> Features:
        return await asyncio.wrap_future(self.engine.submit(kind, value))


async def take(stage: asyncio.Semaphore, places: ExitStack) -> None:
    """Wait for a place in *stage*; *places* gives it back."""
    await stage.acquire()
    places.callback(stage.release)


def _in_thread(threads: ThreadPoolExecutor, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
    return asyncio.get_running_loop().run_in_executor(threads, _carried, function, *args)


def _carried(function: Callable[..., T], *args: Any) -> T:
    """Call *function*; a StopIteration becomes a RuntimeError, since no future can carry it to its waiter."""
    try:
        return function(*args)
    except StopIteration as exc:
        raise RuntimeError from exc


def ms_since(started_s: float) -> float:
    """Return the milliseconds since `time.perf_counter()` gave *started_s*."""
    return (time.perf_counter() - started_s) * 1e3
