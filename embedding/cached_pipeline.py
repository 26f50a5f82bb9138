"""The pipeline for a worker that keeps vectors: equal inputs cost one forward, now and later.

An item is authorized by its own signature before anything is looked up, whatever is kept. Then its input is
hashed, in the thread that has the bytes: of a download, a decoding thread, or here for a short text. What is
not kept is made by a task of its own, which holds the places that the first item took; equal items that come
meanwhile give theirs back and wait for it. It is cancelled when nobody waits any more. Errors are never kept.

`cached` tells a caller that an equal item came before, perhaps from another caller.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from embedding.cache import Cache, Flight, Flights, Vector, image_key, text_key
from embedding.contract.canonical import Signable
from embedding.contract.responses import Embedded, Timings
from embedding.pipeline import INLINE_TEXT_CHARS, Made, Pipeline, ms_since, take


if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from embedding.contract.requests import Item
    from embedding.intake.fetch import Fetcher
    from embedding.model.embedder import EmbeddingModel
    from embedding.model.engine import Engine
    from embedding.pipeline import Authorize, JobDownloads, PipelineLimits


@dataclass(frozen=True, slots=True)
class _Ride:
    """An item's part in the work that makes its vector: whether it began that, or came upon it."""

    flight: Flight[Made]
    is_first: bool


class CachedPipeline(Pipeline):
    """A pipeline that keeps vectors in at most *max_bytes* of memory."""

    def __init__(
        self, engine: Engine[EmbeddingModel], fetcher: Fetcher, limits: PipelineLimits, *, max_bytes: int
    ) -> None:
        super().__init__(engine, fetcher, limits)
        self._cache = Cache(max_bytes)
        self._flights: Flights[Made] = Flights()
        self._hits = 0
        self._misses = 0

    def counters(self) -> dict[str, int]:
        """Return what `health` tells of the stages and of what is kept; a hit is an item told `cached`."""
        return {
            **super().counters(),
            "cache_hits": self._hits,
            "cache_misses": self._misses,
            "cache_entries": len(self._cache),
            "cache_bytes": self._cache.bytes,
        }

    async def _embed_text(self, item: Item, text: str, authorize: Authorize) -> Embedded:
        authorize(item, Signable(text=text))
        started_s = time.perf_counter()
        if len(text) <= INLINE_TEXT_CHARS:
            key = text_key(text, item.truncate)
        else:
            async with self._decoding:
                key = await self._in_decode_thread(text_key, text, item.truncate)
        reading_ms = ms_since(started_s)
        found = self._find(key) or self._begin(key, self._make_text(text, truncate=item.truncate))
        return await self._outcome(item, found, 0.0, reading_ms)

    async def _embed_image(self, item: Item, authorize: Authorize, downloads: JobDownloads) -> Embedded:
        return await self._outcome(item, *await self._find_or_begin_image(item, authorize, downloads))

    async def _find_or_begin_image(
        self, item: Item, authorize: Authorize, downloads: JobDownloads
    ) -> tuple[Vector | _Ride, float, float]:
        """Return what is kept or in progress for *item*, and the milliseconds of download and reading.

        The item's places are given back, or to the work that it begins; so are its bytes.
        """
        started_s = time.perf_counter()
        download_ms = 0.0
        with ExitStack() as places:
            if item.image_url is not None:
                places.callback(downloads.leave, item.image_url)
                authorize(item, Signable(image_url=item.image_url))
                data, key = await self._download(item.image_url, self._fetch, downloads, places)
                download_ms = ms_since(started_s)
            else:
                await take(self._decoding, places)
                data, key = await self._in_decode_thread(self._read, item, authorize)
            reading_ms = ms_since(started_s) - download_ms
            found = self._find(key)
            if found is None:
                has_place = item.image_url is None
                work = self._make_from_bytes(data, places.pop_all(), has_place=has_place)
                found = self._begin(key, work)
        return found, download_ms, reading_ms

    def _fetch(self, url: str) -> tuple[bytes, bytes]:
        data = self._fetcher.fetch(url)
        return data, image_key(data)

    def _read(self, item: Item, authorize: Authorize) -> tuple[bytes, bytes]:
        data = self._own_bytes(item, authorize)
        return data, image_key(data)

    async def _make_from_bytes(self, data: bytes, places: ExitStack, *, has_place: bool) -> Made:
        """Return what is made of an image; *places* are held until it waits for the device.

        *has_place* says that one in `_decoding` is among them.
        """
        started_s = time.perf_counter()
        with places:
            with self._coming():
                if not has_place:
                    await take(self._decoding, places)
                pixels = await self._in_decode_thread(self._picture, data)
            decode_ms = ms_since(started_s)
            await self._room.acquire()
        del data  # a thousand pictures may wait for the device, and their files are larger
        return await self._make_image(pixels, decode_ms)

    def _find(self, key: bytes) -> Vector | _Ride | None:
        vector = self._cache.get(key)
        if vector is not None:
            return vector
        flight = self._flights.find(key)
        return None if flight is None else _Ride(flight, is_first=False)

    def _begin(self, key: bytes, work: Coroutine[Any, Any, Made]) -> _Ride:
        self._misses += 1
        return _Ride(self._flights.begin(key, self._make_and_keep(key, work)), is_first=True)

    async def _make_and_keep(self, key: bytes, work: Coroutine[Any, Any, Made]) -> Made:
        made = await work
        features = made.features.vector.copy()  # the row alone: a view would keep its whole batch
        features.setflags(write=False)
        self._cache.put(key, Vector(features, made.tokens, made.truncated))
        return replace(made, features=replace(made.features, vector=features))

    async def _outcome(
        self, item: Item, found: Vector | _Ride, download_ms: float, reading_ms: float
    ) -> Embedded:
        """Return what *item* is told; if it is found, only download and waiting for another are timed."""
        if isinstance(found, Vector):
            return self._hit(item, found, Timings(download_ms))
        started_s = time.perf_counter()
        made = await self._flights.wait(found.flight)
        if found.is_first:
            made = replace(made, decode_ms=reading_ms + made.decode_ms)
            return replace(made.for_item(item, download_ms=download_ms), cached=False)
        vector = Vector(made.features.vector, made.tokens, made.truncated)
        return self._hit(item, vector, Timings(download_ms, queue_ms=ms_since(started_s)))

    def _hit(self, item: Item, vector: Vector, timings: Timings) -> Embedded:
        self._hits += 1
        features, tokens, truncated = vector.features, vector.tokens, vector.truncated
        return Embedded(item.request_id, item.normalize, features, timings, tokens, truncated, cached=True)
