"""The pipeline's bounds: nothing leaks when callers go away, at whatever stage they do."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from embedding.contract.requests import Item
from embedding.errors import AuthFailed
from embedding.model.engine import Engine
from embedding.pipeline import MAX_JOB_DOWNLOADS, JobDownloads, Pipeline, PipelineLimits
from tests.fakes import FakeDownloads, FakeModel, png, png_base64


URL = "https://pictures.example/{}.png"


class Held:
    """A gate in front of one method of an object."""

    def __init__(self, owner, name) -> None:
        self.gate = threading.Event()
        self.calls = 0
        inner = getattr(owner, name)

        def held(*args):
            self.calls += 1
            self.gate.wait(20)
            return inner(*args)

        setattr(owner, name, held)


@pytest.fixture
def model():
    """Return a fake model."""
    return FakeModel()


@pytest.fixture
def fetcher():
    """Return a fake fetcher that has a picture for every URL asked here."""
    return FakeDownloads({URL.format(i): png() for i in range(100)})


@pytest.fixture
def pipeline(model, fetcher):
    """Return a pipeline of four downloads, two decoding threads and eight places before the engine."""
    limits = PipelineLimits(max_image_bytes=10_000, download_concurrency=4, decode_threads=2)
    return Pipeline(Engine(lambda: model, max_waiting=8), fetcher, limits)


def allow(_item, _signable):
    """Let every item pass."""


async def embed_all(pipeline, items, *, authorize=allow):
    """Embed *items* as one job."""
    downloads = JobDownloads(item.image_url for item in items if item.image_url)
    return await asyncio.gather(
        *(pipeline.embed(item, authorize, downloads) for item in items), return_exceptions=True
    )


async def cancel_while(pipeline, items, held):
    """Embed *items*, cancel them once *held* is reached, and let it go."""
    job = asyncio.ensure_future(embed_all(pipeline, items))
    while not held.calls:
        await asyncio.sleep(0.005)
    job.cancel()
    await asyncio.wait([job])
    held.gate.set()


IMAGES = [Item(image_base64=png_base64()) for _ in range(40)]
TEXTS = [Item(text="a red circle") for _ in range(40)]
LONG_TEXTS = [Item(text="circle " * 200) for _ in range(40)]
URLS = [Item(image_url=URL.format(i)) for i in range(40)]


@pytest.mark.parametrize(
    ("items", "stage"),
    [(URLS, "download"), (IMAGES, "forward of images"), (TEXTS, "forward of texts"), (LONG_TEXTS, "tokens")],
    ids=["download", "image", "text", "long text"],
)
def test_cancelled_jobs_leave_every_place_free(pipeline, model, fetcher, items, stage):
    """Forty items cancelled at any stage take nothing from the forty that follow."""
    owner, name = {
        "download": (fetcher, "fetch"),
        "forward of images": (model, "embed_images"),
        "forward of texts": (model, "embed_texts"),
        "tokens": (model, "embed_texts"),
    }[stage]

    async def scenario():
        await cancel_while(pipeline, items, Held(owner, name))
        return await asyncio.wait_for(embed_all(pipeline, IMAGES + TEXTS + URLS), 20)

    done = asyncio.run(scenario())

    assert [type(outcome).__name__ for outcome in done] == ["Embedded"] * 120


def test_cancelled_downloads_are_not_begun(pipeline, fetcher):
    """Of a cancelled job's downloads only those that run already are finished."""
    held = Held(fetcher, "fetch")
    asyncio.run(cancel_while(pipeline, URLS, held))
    time.sleep(0.1)

    assert held.calls <= 4


def test_one_job_does_not_take_every_download(model, fetcher):
    """A job of slow URLs leaves room for another job's download."""
    limits = PipelineLimits(
        max_image_bytes=10_000, download_concurrency=MAX_JOB_DOWNLOADS + 1, decode_threads=2
    )
    pipeline = Pipeline(Engine(lambda: model), fetcher, limits)
    gate = threading.Event()
    inner = fetcher.fetch
    fetcher.fetch = lambda url: inner(url) if url == URL.format(99) else gate.wait(20) and inner(url)

    async def scenario():
        slow = asyncio.ensure_future(embed_all(pipeline, URLS))
        await asyncio.sleep(0.05)
        quick = await asyncio.wait_for(embed_all(pipeline, [Item(image_url=URL.format(99))]), 5)
        gate.set()
        await slow
        return quick

    assert type(asyncio.run(scenario())[0]).__name__ == "Embedded"


def test_refused_item_frees_its_twins_bytes(pipeline):
    """An item whose signature is refused counts as done with its URL, so nothing is kept for it."""
    downloads = JobDownloads([URL.format(1)] * 2)

    def refuse(_item, _signable):
        raise AuthFailed("no")

    async def scenario():
        item = Item(image_url=URL.format(1))
        await pipeline.embed(item, allow, downloads)
        with pytest.raises(AuthFailed):
            await pipeline.embed(item, refuse, downloads)

    asyncio.run(scenario())

    assert downloads._fetches == {}


def test_equal_urls_are_fetched_once(pipeline, fetcher):
    """Forty items with one URL cost one download, however few run at once."""
    done = asyncio.run(embed_all(pipeline, [Item(image_url=URL.format(1))] * 40))

    assert {type(outcome).__name__ for outcome in done} == {"Embedded"}
    assert fetcher.asked == [URL.format(1)]
