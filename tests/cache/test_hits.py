"""A worker that keeps vectors answers as one that does not, with fewer forwards, and says so."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding import cached_pipeline
from embedding.cache import ENTRY_BYTES
from embedding.contract.requests import Item
from embedding.pipeline import INLINE_TEXT_CHARS, JobDownloads
from tests.cache.known import (
    BAD_URL,
    COLOURS,
    LARGE,
    LONG,
    OTHER_URL,
    PICTURE,
    SAME_AS_DATA,
    SAME_BY_URL,
    TEXT,
    TOO_LONG,
    URL,
    downloads,
    one_after_another,
    pipeline_of,
    slowed,
)
from tests.fakes import DIM, FakeModel, fake_actions, png_base64
from tests.test_pipeline import allow, embed_all


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
        for times in (first, second):
            assert times.download_ms > 0 if item.image_url else times.download_ms == 0
        assert second.total_ms > 0

    def test_times_of_a_miss(self, pipeline, fetcher):
        """The first item's decoding includes reading its base64, and not its download."""
        slowed(fetcher, "fetch", 0.2)
        slowed(pipeline, "_own_bytes", 0.2)
        by_url, by_base64 = (
            outcome.timings
            for outcome in one_after_another(pipeline, [Item(image_url=URL.format(1)), PICTURE])
        )

        assert by_url.download_ms > 200 > by_url.decode_ms
        assert by_base64.decode_ms > 200

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
        del first["batch_timings"], second["batch_timings"]

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
