"""A worker that keeps vectors answers as one that does not, with fewer forwards, and to the same callers."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding import cached_pipeline
from embedding.cache import ENTRY_BYTES
from embedding.cached_pipeline import CachedPipeline
from embedding.contract.canonical import Signable
from embedding.contract.keys import Keyring
from embedding.contract.requests import Item
from embedding.contract.signatures import Verifier, sign_v2
from embedding.errors import AuthFailed
from embedding.model.engine import Engine
from embedding.pipeline import INLINE_TEXT_CHARS, JobDownloads, Pipeline, PipelineLimits
from tests.fakes import DIM, FakeDownloads, FakeModel, fake_actions, png, png_base64
from tests.test_pipeline import Held, allow, cancel_while, embed_all


URL = "https://pictures.example/{}.png"
OTHER_URL = "https://pictures.example/other.png"
BAD_URL = "https://pictures.example/bad.png"
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
LARGE = 1_000_000
LONG = "circle " * 60
TOO_LONG = "circle " * 200
KEYRING = Keyring.parse("an-example-secret-of-at-least-32-bytes")

PICTURE = Item(image_base64=png_base64())
SAME_BY_URL = Item(image_url=URL.format(0))
SAME_AS_DATA = Item(image_base64="data:image/png;base64," + png_base64())
TEXT = Item(text="a red circle")


def downloads():
    """Return a fake fetcher: some URLs with pictures of their own, two with the same, and a bad one."""
    pictures = {URL.format(i): png(colour) for i, colour in enumerate(COLOURS)}
    return FakeDownloads(pictures | {OTHER_URL: png(), BAD_URL: b"no picture"})


@pytest.fixture
def model():
    """Return a fake model."""
    return FakeModel()


@pytest.fixture
def fetcher():
    """Return the fake fetcher."""
    return downloads()


def pipeline_of(model, fetcher, *, max_bytes=LARGE):
    """Return a pipeline of small stages; one that keeps nothing where *max_bytes* is None."""
    limits = PipelineLimits(max_image_bytes=10_000, download_concurrency=4, decode_threads=2)
    engine = Engine(lambda: model, max_waiting=8)
    if max_bytes is None:
        return Pipeline(engine, fetcher, limits)
    return CachedPipeline(engine, fetcher, limits, max_bytes=max_bytes)


@pytest.fixture
def pipeline(model, fetcher):
    """Return a pipeline that keeps vectors."""
    return pipeline_of(model, fetcher)


def one_after_another(pipeline, items):
    """Embed each of *items* as a job of its own, and return what became of each."""

    async def scenario():
        return [(await embed_all(pipeline, [item]))[0] for item in items]

    return asyncio.run(scenario())


class TestHits:
    @pytest.mark.parametrize(
        ("first", "second", "is_hit"),
        [
            (PICTURE, PICTURE, True),
            (PICTURE, SAME_BY_URL, True),
            (SAME_BY_URL, PICTURE, True),
            (SAME_BY_URL, Item(image_url=OTHER_URL), True),
            (PICTURE, SAME_AS_DATA, True),
            (PICTURE, Item(image_base64=png_base64(), normalize=False, request_id="x"), True),
            (PICTURE, Item(image_base64=png_base64((0, 255, 0))), False),
            (SAME_BY_URL, Item(image_url=URL.format(1)), False),
            (TEXT, TEXT, True),
            (TEXT, Item(text="a red circle", normalize=False, request_id="x"), True),
            (TEXT, Item(text="a red circle", truncate=False), False),
            (TEXT, Item(text="a red circle "), False),
            (TEXT, Item(text="A red circle"), False),
            (Item(text=TOO_LONG), Item(text=TOO_LONG), True),
            (Item(text=TOO_LONG), Item(text=TOO_LONG + "x"), False),
            (Item(text="poison"), Item(text="poison"), False),
        ],
    )  # fmt: skip
    def test_equal_input_is_a_hit(self, model, pipeline, first, second, is_hit):
        """The same decoded bytes, or the same text to be cut alike, cost no second forward; others do."""
        outcomes = one_after_another(pipeline, [first, second])

        assert len(model.batches) == 2 - is_hit
        if first.text != "poison":
            assert [outcome.cached for outcome in outcomes] == [False, is_hit]
        assert pipeline.counters()["cache_hits"] == is_hit
        assert pipeline.counters()["cache_misses"] == 2 - is_hit

    def test_a_hit_is_for_its_own_item(self, pipeline):
        """Id and `normalize` are the item's own; the vector, tokens and cut are those of the first."""
        items = [Item(text=TOO_LONG, request_id="1"), Item(text=TOO_LONG, request_id="2", normalize=False)]
        first, second = one_after_another(pipeline, items)

        assert (second.request_id, second.normalize) == ("2", False)
        assert (second.tokens, second.truncated) == (first.tokens, first.truncated) == (77, True)
        assert second.features is first.features

    @pytest.mark.parametrize(
        "item", [PICTURE, SAME_BY_URL, TEXT, Item(text=LONG)], ids=["64", "url", "text", "long"]
    )
    def test_times_of_a_hit(self, pipeline, item):
        """A hit took its own download, and nothing for what was not done."""
        first, second = (outcome.timings for outcome in one_after_another(pipeline, [item, item]))

        assert first.decode_ms > 0 and first.inference_ms > 0
        assert (second.decode_ms, second.queue_ms, second.inference_ms) == (0, 0, 0)
        assert (second.download_ms > 0) is (item.image_url is not None)
        assert second.total_ms > 0

    def test_what_is_kept_cannot_be_changed(self, pipeline):
        """Nobody who is given the vector can write into the one that is kept."""
        for outcome in one_after_another(pipeline, [PICTURE, PICTURE]):
            with pytest.raises(ValueError, match="read-only"):
                outcome.features[0] = 7

    def test_one_row_does_not_keep_its_batch(self, pipeline, model):
        """A kept vector owns its numbers: the forward's other rows are freed."""
        texts = [Item(text=f"number {i}") for i in range(20)]
        outcomes = asyncio.run(embed_all(pipeline, texts))

        assert max(model.batches) > 1
        assert all(outcome.features.base is None for outcome in outcomes)

    @pytest.mark.parametrize(("over", "hits"), [(-1, 0), (0, 1), (1, 1)], ids=["n-1", "n", "n+1"])
    def test_bound(self, model, fetcher, over, hits):
        """A vector is kept if it fits to the byte; all are served either way."""
        pipeline = pipeline_of(model, fetcher, max_bytes=4 * DIM + ENTRY_BYTES + over)
        outcomes = one_after_another(pipeline, [TEXT, TEXT])

        assert pipeline.counters()["cache_hits"] == hits
        assert pipeline.counters()["cache_entries"] == hits
        np.testing.assert_array_equal(outcomes[0].features, outcomes[1].features)


ITEMS = st.lists(
    st.one_of(
        st.sampled_from(["one", "two", "poison", LONG, TOO_LONG, ""]).flatmap(
            lambda text: st.booleans().map(lambda cut: Item(text=text, truncate=cut))
        ),
        st.sampled_from([URL.format(0), OTHER_URL, URL.format(1), BAD_URL, "https://nowhere.example/"]).map(
            lambda url: Item(image_url=url)
        ),
        st.sampled_from([*map(png_base64, COLOURS), png_base64((0, 0, 0)), "!", "bm8="]).map(
            lambda picture: Item(image_base64=picture)
        ),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(jobs=st.lists(ITEMS, max_size=3), max_bytes=st.sampled_from([1, 2 * (ENTRY_BYTES + 4 * DIM), LARGE]))
def test_any_jobs_are_answered_as_without(jobs, max_bytes):
    """Vectors equal bit for bit, tokens and errors too, whatever is kept and whatever comes at once."""

    async def told(pipeline):
        done = [await embed_all(pipeline, job) for job in jobs]
        return [
            (outcome.features.tobytes(), outcome.tokens, outcome.truncated)
            if hasattr(outcome, "features")
            else (type(outcome), str(outcome))
            for job in done
            for outcome in job
        ]

    plain, caching = (pipeline_of(FakeModel(), downloads(), max_bytes=size) for size in (None, max_bytes))
    try:
        assert asyncio.run(told(caching)) == asyncio.run(told(plain))
    finally:
        plain.engine.close()
        caching.engine.close()


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
            while not held.calls:
                await asyncio.sleep(0.005)
            held.gate.set()
            return [outcome for job in await jobs for outcome in job]

        outcomes = asyncio.run(scenario())

        assert (model.batches, decoded.calls) == ([1], 1)
        assert sorted(outcome.cached for outcome in outcomes) == [False] + [True] * 29
        assert all((o.timings.decode_ms, o.timings.inference_ms) == (0, 0) for o in outcomes if o.cached)

    @pytest.mark.parametrize(
        "item", [Item(image_base64=png_base64((0, 0, 0))), Item(text="poison")], ids=["image", "text"]
    )
    def test_an_error_reaches_all_and_is_not_kept(self, pipeline, model, item):
        """Ten equal items that wait for one forward are each told its error; a later one causes another."""
        held = Held(model, "embed_texts" if item.text else "embed_images")

        async def scenario():
            together = asyncio.ensure_future(embed_all(pipeline, [item] * 10))
            while sum(flight.waiters for flight in pipeline._flights._flights.values()) < 10:
                await asyncio.sleep(0.005)
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
        assert pipeline._room._value == 8
        assert pipeline._decoding._value == 4
        assert pipeline._downloading._value == 4

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
        stages = (pipeline._room, pipeline._decoding, pipeline._downloading)
        assert [stage._value for stage in stages] == [8, 4, 4]
        assert pipeline.engine.coming == 0

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


class TestAuthorization:
    @pytest.mark.parametrize(
        "item", [PICTURE, SAME_BY_URL, TEXT, Item(text=TOO_LONG)], ids=["64", "url", "text", "long"]
    )
    def test_who_may_not_ask_gets_nothing_that_is_kept(self, pipeline, fetcher, item):
        """An item without a right to it is refused, and nothing is looked up or downloaded for it."""
        judged = []

        def refuse(item, _signable):
            judged.append(item)
            raise AuthFailed("no")

        async def scenario():
            await embed_all(pipeline, [item])
            asked = list(fetcher.asked)
            return await embed_all(pipeline, [item, item], authorize=refuse), asked == fetcher.asked

        refused, nothing_asked = asyncio.run(scenario())

        assert [type(outcome) for outcome in refused] == [AuthFailed] * 2
        assert len(judged) == 2
        assert nothing_asked
        assert pipeline.counters()["cache_hits"] == 0

    def test_who_may_not_ask_does_not_join(self, pipeline, model):
        """An item in flight is no way round its signature either."""
        held = Held(model, "embed_texts")

        def refuse(_item, _signable):
            raise AuthFailed("no")

        async def scenario():
            first = asyncio.ensure_future(embed_all(pipeline, [TEXT]))
            while not held.calls:
                await asyncio.sleep(0.005)
            refused = await asyncio.wait_for(embed_all(pipeline, [TEXT], authorize=refuse), 5)
            held.gate.set()
            await first
            return refused

        assert [type(outcome) for outcome in asyncio.run(scenario())] == [AuthFailed]

    def test_each_item_of_a_batch_needs_its_own_signature(self):
        """Of three equal items, one signed, one unsigned and one signed for another text, one is answered."""
        actions = fake_actions(verifier=Verifier(KEYRING), cache_max_bytes=LARGE)
        signed = sign_v2(Signable(text="x", in_batch=True), KEYRING.newest)
        other = sign_v2(Signable(text="y", in_batch=True), KEYRING.newest)
        items = [{"text": "x", "auth": signed}, {"text": "x"}, {"text": "x", "auth": other}]
        for _ in range(2):
            results = asyncio.run(actions.run({"items": items}))["results"]

            assert [result.get("error", {}).get("code") for result in results] == [
                None,
                "AUTH_FAILED",
                "AUTH_FAILED",
            ]


class TestTold:
    def test_the_answer_says_so(self):
        """`cached` stands in each embedding where vectors are kept, and nowhere where they are not."""
        job = {"items": [{"text": "x"}, {"image_base64": png_base64()}, {"image_base64": "!"}]}
        keeping, plain = fake_actions(cache_max_bytes=LARGE), fake_actions()
        told = [
            [result.get("cached") for result in asyncio.run(actions.run(job))["results"]]
            for actions in (keeping, keeping, plain, plain)
        ]

        assert told == [[False, False, None], [True, True, None], [None] * 3, [None] * 3]

    def test_openais_form_stays_openais(self):
        """An OpenAI client gets the fields of that API, and equal tokens to pay for."""
        job = {"openai_route": "/v1/embeddings", "openai_input": {"input": ["a b", "a b"], "model": "served"}}
        actions = fake_actions(cache_max_bytes=LARGE)
        first, second = (asyncio.run(actions.run(job))[0] for _ in range(2))

        assert first == second
        assert set(first["data"][0]) == {"object", "index", "embedding"}

    def test_health_counts(self):
        """Hits, misses, entries and bytes are told where vectors are kept, and only there."""
        actions = fake_actions(cache_max_bytes=LARGE)
        asyncio.run(actions.run({"texts": ["a", "b", "a"]}))
        counters = asyncio.run(actions.run({"action": "health"}))["counters"]
        plain = asyncio.run(fake_actions().run({"action": "health"}))["counters"]

        assert set(counters) - set(plain) == {"cache_hits", "cache_misses", "cache_entries", "cache_bytes"}
        assert counters["cache_hits"] == 1
        assert counters["cache_misses"] == counters["cache_entries"] == 2
        assert counters["cache_bytes"] == 2 * (4 * DIM + ENTRY_BYTES)


class TestThreads:
    @pytest.mark.parametrize(
        ("item", "thread"),
        [
            (PICTURE, "decode"),
            (SAME_BY_URL, "download"),
            (Item(text="x" * INLINE_TEXT_CHARS), "MainThread"),
            (Item(text="x" * (INLINE_TEXT_CHARS + 1)), "decode"),
        ],
        ids=["base64", "url", "short text", "long text"],
    )
    def test_hashing_is_done_where_the_bytes_are(self, pipeline, monkeypatch, item, thread):
        """Only a short text is hashed on the event loop."""
        names = []
        for name in ("image_key", "text_key"):
            inner = getattr(cached_pipeline, name)

            def noted(*args, inner=inner):
                names.append(threading.current_thread().name)
                return inner(*args)

            monkeypatch.setattr(cached_pipeline, name, noted)
        one_after_another(pipeline, [item])

        assert [name.split("_")[0] for name in names] == [thread]

    def test_equal_urls_of_a_job_are_hashed_once(self, pipeline, fetcher, monkeypatch):
        """Forty items with one URL cost one download and one digest."""
        calls = []
        inner = cached_pipeline.image_key
        monkeypatch.setattr(cached_pipeline, "image_key", lambda data: calls.append(1) or inner(data))
        asyncio.run(embed_all(pipeline, [SAME_BY_URL] * 40))

        assert (fetcher.asked, calls) == ([SAME_BY_URL.image_url], [1])


def test_off_costs_nothing(model, fetcher, monkeypatch):
    """Without a cache nothing is hashed, and each item goes into as many threads as it needs."""
    monkeypatch.setattr("hashlib.sha256", None)
    pipeline = pipeline_of(model, fetcher, max_bytes=None)
    hops = []

    async def scenario():
        loop = asyncio.get_running_loop()
        inner = loop.run_in_executor
        monkeypatch.setattr(loop, "run_in_executor", lambda *args: hops.append(1) or inner(*args))
        for item in (PICTURE, SAME_BY_URL, TEXT, Item(text=TOO_LONG)):
            downloads = JobDownloads([item.image_url] if item.image_url else [])
            await pipeline.embed(item, allow, downloads)

    asyncio.run(scenario())

    assert len(hops) == 1 + 2 + 0 + 1
