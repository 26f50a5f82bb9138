"""Equal work in flight is done once, for whoever still waits for it."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from embedding.contract.requests import Item
from tests.cache.known import (
    BAD_URL,
    LARGE,
    PICTURE,
    SAME_AS_DATA,
    SAME_BY_URL,
    TEXT,
    TOO_LONG,
    URL,
    downloads,
    pipeline_of,
    taken_places,
    waiting,
)
from tests.fakes import FakeModel, fake_actions, png_base64
from tests.test_pipeline import Held, cancel_while, embed_all


class TestAtOnce:
    @pytest.mark.parametrize(
        "items", [[PICTURE, SAME_BY_URL, SAME_AS_DATA] * 10, [TEXT] * 30, [Item(text=TOO_LONG)] * 30],
        ids=["image", "text", "long text"],
    )  # fmt: skip
    def test_equal_items_share_one_forward(self, pipeline, model, items):
        """Thirty equal items in three jobs at once cost one decode and one forward; one began it."""
        held = Held(model, "embed_texts" if items[0].text else "embed_images")
        decoded = Held(pipeline, "_tokenize" if items[0].text else "_picture")
        decoded.gate.set()

        async def scenario():
            jobs = asyncio.gather(*(embed_all(pipeline, items[i::3]) for i in range(3)))
            await waiting(pipeline, 30)
            held.gate.set()
            return [outcome for job in await jobs for outcome in job]

        outcomes = asyncio.run(scenario())

        assert (model.batches, decoded.calls) == ([1], 1)
        assert sorted(outcome.cached for outcome in outcomes) == [False] + [True] * 29
        others = [outcome.timings for outcome in outcomes if outcome.cached]
        assert all((times.decode_ms, times.inference_ms) == (0, 0) for times in others)
        assert all(times.queue_ms > 0 for times in others)

    @pytest.mark.parametrize(
        "item", [Item(image_base64=png_base64((0, 0, 0))), Item(text="poison")], ids=["image", "text"]
    )
    def test_an_error_reaches_all_and_is_not_kept(self, pipeline, model, item):
        """Ten equal items that wait for one forward are each told its error; a later one causes another."""
        held = Held(model, "embed_texts" if item.text else "embed_images")

        async def scenario():
            together = asyncio.ensure_future(embed_all(pipeline, [item] * 10))
            await waiting(pipeline, 10)
            held.gate.set()
            return await together, await embed_all(pipeline, [item])

        together, later = asyncio.run(scenario())

        assert {str(error) for error in together + later} == {"the forward pass failed for this item"}
        assert model.batches == [1, 1]
        assert pipeline.counters()["cache_entries"] == 0

    @pytest.mark.parametrize("stage", ["decode", "forward"])
    @pytest.mark.parametrize("item", [PICTURE, SAME_BY_URL], ids=["base64", "url"])
    def test_the_first_caller_may_go(self, pipeline, model, item, stage):
        """If the job that began the work is cancelled, another that waits for it gets its vector."""
        held = Held(pipeline, "_picture") if stage == "decode" else Held(model, "embed_images")

        async def scenario():
            first = asyncio.ensure_future(embed_all(pipeline, [item]))
            while not held.calls:
                await asyncio.sleep(0.005)
            second = asyncio.ensure_future(embed_all(pipeline, [PICTURE]))
            await asyncio.sleep(0.05)
            first.cancel()
            await asyncio.wait([first])
            held.gate.set()
            return (await second)[0]

        assert asyncio.run(scenario()).cached is True
        assert (model.batches, held.calls) == ([1], 1)

    @pytest.mark.parametrize(
        ("item", "stage"),
        [(PICTURE, "image"), (SAME_BY_URL, "image"), (TEXT, "text"), (Item(text=TOO_LONG), "text")],
    )
    def test_work_for_nobody_is_dropped(self, pipeline, model, item, stage):
        """When all who wait are cancelled, a forward that has not begun is not run, and no place is lost."""
        blocker = Item(text="blocker") if stage == "text" else Item(image_base64=png_base64((9, 9, 9)))
        held = Held(model, f"embed_{stage}s")

        async def scenario():
            first = asyncio.ensure_future(embed_all(pipeline, [blocker]))
            while not held.calls:
                await asyncio.sleep(0.005)
            jobs = [asyncio.ensure_future(embed_all(pipeline, [item] * 5)) for _ in range(2)]
            while not pipeline.engine.depth():
                await asyncio.sleep(0.005)
            for job in jobs:
                job.cancel()
            await asyncio.wait(jobs)
            held.gate.set()
            await first
            ran = list(model.batches)
            await asyncio.wait_for(embed_all(pipeline, [Item(text=f"{i}") for i in range(40)]), 20)
            return ran

        assert asyncio.run(scenario()) == [1]
        assert taken_places(pipeline) == [0, 0, 0]

    def test_a_job_out_of_time_does_not_fail_the_others(self):
        """A job whose time is over is told so; one that waits for the same forward gets its vector."""
        model = FakeModel()
        held = Held(model, "embed_images")
        actions = fake_actions(model=model, cache_max_bytes=LARGE, job_timeout_s=1.0)
        job = {"items": [{"image_base64": png_base64()}]}

        async def scenario():
            early = asyncio.ensure_future(actions.run(job))
            await asyncio.sleep(0.6)
            late = asyncio.ensure_future(actions.run(job))
            first = await early
            held.gate.set()
            return first, await late

        first, second = (answer["results"][0] for answer in asyncio.run(scenario()))
        assert first["error"]["code"] == "OVERLOADED"
        assert second["cached"] is True
        assert model.batches == [1]

    @pytest.mark.parametrize("stage", ["download", "decode", "forward", "tokens"])
    def test_cancelled_jobs_leave_every_place_free(self, pipeline, model, fetcher, stage):
        """Forty different and equal items cancelled at any stage take nothing from those that follow."""
        urls = [Item(image_url=URL.format(i % 3)) for i in range(40)]
        held, items = {
            "download": lambda: (Held(fetcher, "fetch"), urls),
            "decode": lambda: (Held(pipeline, "_picture"), urls + [PICTURE] * 40),
            "forward": lambda: (Held(model, "embed_images"), urls + [PICTURE] * 40),
            "tokens": lambda: (
                Held(pipeline, "_tokenize"),
                [Item(text=TOO_LONG + str(i % 9)) for i in range(40)],
            ),
        }[stage]()

        async def scenario():
            await cancel_while(pipeline, items, held)
            return await asyncio.wait_for(embed_all(pipeline, [*urls, PICTURE, TEXT, *items]), 20)

        assert {type(outcome).__name__ for outcome in asyncio.run(scenario())} == {"Embedded"}
        assert taken_places(pipeline) == [0, 0, 0]
        assert pipeline.engine.coming == 0

    @pytest.mark.parametrize("max_bytes", [None, LARGE], ids=["off", "on"])
    @pytest.mark.parametrize(
        ("item", "stage", "expected"),
        [
            (SAME_BY_URL, "fetch", [1, 0, 0]),
            (SAME_BY_URL, "_picture", [1, 1, 0]),
            (SAME_BY_URL, "embed_images", [0, 0, 1]),
            (PICTURE, "_own_bytes", [0, 1, 0]),
            (PICTURE, "_picture", [0, 1, 0]),
            (PICTURE, "embed_images", [0, 0, 1]),
            (TEXT, "embed_texts", [0, 0, 1]),
            (Item(text=TOO_LONG), "_tokenize", [0, 1, 0]),
        ],
    )
    def test_places_are_those_of_a_worker_without(self, item, stage, expected, max_bytes):
        """An item in a stage takes the places that its bytes need, kept vectors or not; twins take none."""
        model, fetcher = FakeModel(), downloads()
        pipeline = pipeline_of(model, fetcher, max_bytes=max_bytes)
        held = Held(next(owner for owner in (fetcher, model, pipeline) if hasattr(owner, stage)), stage)

        async def scenario():
            jobs = [asyncio.ensure_future(embed_all(pipeline, [item]))]
            while not held.calls:
                await asyncio.sleep(0.005)
            if max_bytes and stage in {"_picture", "embed_images", "embed_texts", "_tokenize"}:
                jobs += [asyncio.ensure_future(embed_all(pipeline, [item])) for _ in range(9)]
                await waiting(pipeline, 10)
            taken = taken_places(pipeline)
            held.gate.set()
            await asyncio.wait(jobs)
            return taken

        assert asyncio.run(scenario()) == expected
        assert taken_places(pipeline) == [0, 0, 0]

    @pytest.mark.parametrize("max_bytes", [None, LARGE], ids=["off", "on"])
    def test_a_bad_picture_is_freed_at_once(self, model, fetcher, max_bytes):
        """No ring of references keeps an error, and with it the file, until garbage is collected."""
        pipeline = pipeline_of(model, fetcher, max_bytes=max_bytes)

        async def scenario():
            outcomes = await embed_all(pipeline, [Item(image_url=BAD_URL), Item(image_base64="bm8=")] * 2)
            seen = [weakref.ref(error) for error in outcomes]
            del outcomes
            await asyncio.sleep(0.05)
            return [error() for error in seen]

        gc.disable()
        try:
            assert asyncio.run(scenario()) == [None] * 4
        finally:
            gc.enable()
