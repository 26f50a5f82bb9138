"""An item's way: from a URL, base64 or a text to its features.

Three stages, each bounded, so that memory is: downloads (I/O threads), decoding (a few threads that
release the interpreter lock), and the engine's queue. An item keeps its place in a stage until the next
has room, which holds back the stage before it. Nothing slow runs on the event loop.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from embedding.contract.canonical import Signable
from embedding.contract.responses import Embedded, Timings
from embedding.intake.image import ImageLimits, decode_base64, decode_image
from embedding.model.engine import Encoder, Engine, Features, Kind


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np
    import numpy.typing as npt

    from embedding.contract.requests import Item
    from embedding.intake.image import Preprocess
    from embedding.intake.text import Tokens

MAX_WAITING_ITEMS: Final = 1024  # decoded pictures of 150 KB, so 154 MB at 224 pixels
INLINE_TEXT_CHARS: Final = 500  # a text this short is tokenised faster than a thread is woken
MAX_DECODE_THREADS: Final = 8


class Tokenizer(Protocol):
    """What turns a text into tokens."""

    def tokenize(self, text: str, *, truncate: bool) -> Tokens:
        """Return the tokens of *text*; raises TextTooLong if it does not fit and may not be cut."""


class Model(Encoder, Protocol):
    """What the pipeline needs of a loaded model."""

    @property
    def preprocess(self) -> Preprocess:
        """How a picture becomes the model's input."""

    @property
    def tokenizer(self) -> Tokenizer:
        """How a text becomes the model's input."""


class Downloader(Protocol):
    """What fetches a URL, blocking."""

    def fetch(self, url: str) -> bytes:
        """Return the body behind *url*; raises DownloadError or ImageTooLarge."""


@dataclass(frozen=True, slots=True)
class PipelineLimits:
    """How wide each stage is, and how large an image may be."""

    max_image_bytes: int
    download_concurrency: int
    max_batch_size: int
    decode_threads: int = min(MAX_DECODE_THREADS, len(os.sched_getaffinity(0)))
    max_waiting: int = MAX_WAITING_ITEMS


class Job:
    """What the items of one job share: who may ask, and one download for equal URLs."""

    def __init__(self, authorize: Callable[[Item, Signable], None], urls: Iterable[str]) -> None:
        """*authorize* raises AuthFailed for an item that its caller may not ask for; any thread calls it."""
        self.authorize = authorize
        self._uses = Counter(urls)
        self._downloads: dict[str, asyncio.Future[bytes]] = {}

    async def download(self, url: str, start: Callable[[], asyncio.Future[bytes]]) -> bytes:
        """Return the bytes behind *url*: fetched once, and kept until the last item has asked."""
        if url not in self._downloads:
            self._downloads[url] = start()
        downloading = self._downloads[url]
        self._uses[url] -= 1
        if self._uses[url] <= 0:
            del self._downloads[url]
        return await asyncio.shield(downloading)


class Pipeline:
    """All stages, shared by all jobs of a worker."""

    def __init__(self, model: Model, downloader: Downloader, limits: PipelineLimits) -> None:
        """Start the threads."""
        self.engine = Engine(model, max_batch_size=limits.max_batch_size, max_waiting=limits.max_waiting)
        self._model = model
        self._downloader = downloader
        self._image_limits = ImageLimits(max_bytes=limits.max_image_bytes)
        self._download_threads = ThreadPoolExecutor(limits.download_concurrency, "download")
        self._decode_threads = ThreadPoolExecutor(limits.decode_threads, "decode")
        self._downloading = asyncio.Semaphore(limits.download_concurrency)
        self._decoding = asyncio.Semaphore(2 * limits.decode_threads)
        self._room = asyncio.Semaphore(limits.max_waiting)

    async def embed(self, item: Item, job: Job) -> Embedded:
        """Return the features of *item*, (D,) float32, not normalised.

        Raises whatever WorkerError the item deserves. Cancelling drops its work.
        """
        started_s = time.perf_counter()
        if item.text is not None:
            done = await self._embed_text(item, item.text, job)
        else:
            done = await self._embed_image(item, job)
        return replace(done, timings=replace(done.timings, total_ms=_ms_since(started_s)))

    def close(self) -> None:
        """Finish what is queued and stop the threads."""
        self._download_threads.shutdown(cancel_futures=True)
        self._decode_threads.shutdown(cancel_futures=True)
        self.engine.close()

    async def _embed_text(self, item: Item, text: str, job: Job) -> Embedded:
        job.authorize(item, Signable(text=text))
        started_s = time.perf_counter()
        if len(text) <= INLINE_TEXT_CHARS:
            tokens = self._model.tokenizer.tokenize(text, truncate=item.truncate)
        else:
            tokens = await self._in_decode_thread(self._tokenize, text, item.truncate)
        decode_ms = _ms_since(started_s)
        async with self._room:
            features = await self._forward("text", tokens)
        timings = _timings(features, decode_ms=decode_ms)
        return Embedded(
            item.request_id, item.normalize, features.vector, timings, len(tokens.ids), tokens.truncated
        )

    def _tokenize(self, text: str, truncate: bool) -> Tokens:  # noqa: FBT001  called through an executor
        return self._model.tokenizer.tokenize(text, truncate=truncate)

    async def _embed_image(self, item: Item, job: Job) -> Embedded:
        started_s = time.perf_counter()
        async with self._downloading if item.image_url else nullcontext():
            data = await self._download(item, item.image_url, job) if item.image_url else None
            download_ms = _ms_since(started_s)
            async with self._decoding:
                pixels = await self._in_decode_thread(self._decode, item, data, job)
                decode_ms = _ms_since(started_s) - download_ms
                await self._room.acquire()
        try:
            features = await self._forward("image", pixels)
        finally:
            self._room.release()
        timings = _timings(features, download_ms=download_ms if data else 0.0, decode_ms=decode_ms)
        return Embedded(item.request_id, item.normalize, features.vector, timings)

    async def _download(self, item: Item, url: str, job: Job) -> bytes:
        job.authorize(item, Signable(image_url=url))
        loop = asyncio.get_running_loop()
        return await job.download(
            url, lambda: loop.run_in_executor(self._download_threads, self._downloader.fetch, url)
        )

    def _decode(self, item: Item, data: bytes | None, job: Job) -> npt.NDArray[np.uint8]:
        if data is None:
            data = decode_base64(str(item.image_base64), max_bytes=self._image_limits.max_bytes)
            job.authorize(item, Signable(image_bytes=data))
        return decode_image(data, preprocess=self._model.preprocess, limits=self._image_limits)

    async def _in_decode_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._decode_threads, function, *args)

    async def _forward(self, kind: Kind, value: Any) -> Features:
        return await asyncio.wrap_future(self.engine.submit(kind, value))


def _timings(features: Features, *, download_ms: float = 0.0, decode_ms: float) -> Timings:
    return Timings(download_ms, decode_ms, features.queue_ms, features.inference_ms)


def _ms_since(started_s: float) -> float:
    return (time.perf_counter() - started_s) * 1e3
