"""Pipelines that keep vectors, and items whose likeness is known."""

from __future__ import annotations

import asyncio
import time

from embedding.cached_pipeline import CachedPipeline
from embedding.contract.requests import Item
from embedding.model.engine import Engine
from embedding.pipeline import DECODES_AHEAD, Pipeline, PipelineLimits
from tests.fakes import FakeDownloads, png, png_base64
from tests.test_pipeline import embed_all


URL = "https://pictures.example/{}.png"
OTHER_URL = "https://pictures.example/other.png"
BAD_URL = "https://pictures.example/bad.png"
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
LARGE = 1_000_000
DOWNLOADS, DECODE_THREADS = 4, 2  # of a pipeline here
LONG = "circle " * 60
TOO_LONG = "circle " * 200

PICTURE = Item(image_base64=png_base64())
SAME_BY_URL = Item(image_url=URL.format(0))
SAME_AS_DATA = Item(image_base64="data:image/png;base64," + png_base64())
TEXT = Item(text="a red circle")


def downloads():
    """Return a fake fetcher: some URLs with pictures of their own, two with the same, and a bad one."""
    pictures = {URL.format(i): png(colour) for i, colour in enumerate(COLOURS)}
    return FakeDownloads(pictures | {OTHER_URL: png(), BAD_URL: b"no picture"})


def pipeline_of(model, fetcher, *, max_bytes=LARGE):
    """Return a pipeline of small stages; one that keeps nothing where *max_bytes* is None."""
    limits = PipelineLimits(
        max_image_bytes=10_000, download_concurrency=DOWNLOADS, decode_threads=DECODE_THREADS
    )
    engine = Engine(lambda: model, max_waiting=8)
    if max_bytes is None:
        return Pipeline(engine, fetcher, limits)
    return CachedPipeline(engine, fetcher, limits, max_bytes=max_bytes)


def one_after_another(pipeline, items):
    """Embed each of *items* as a job of its own, and return what became of each."""

    async def scenario():
        return [(await embed_all(pipeline, [item]))[0] for item in items]

    return asyncio.run(scenario())


def slowed(owner, name, wait_s):
    """Make a method of *owner* take *wait_s* longer."""
    inner = getattr(owner, name)
    setattr(owner, name, lambda *args: time.sleep(wait_s) or inner(*args))


async def waiting(pipeline, count):
    """Wait until *count* items wait for work in flight."""
    while sum(flight.waiters for flight in pipeline._flights._flights.values()) < count:
        await asyncio.sleep(0.005)


def taken_places(pipeline):
    """Return how many downloads, decodings and pictures before the engine there are."""
    stages = (pipeline._downloading, pipeline._decoding, pipeline._room)
    sizes = (DOWNLOADS, (1 + DECODES_AHEAD) * DECODE_THREADS, pipeline.engine.max_waiting)
    return [size - stage._value for size, stage in zip(sizes, stages, strict=True)]
