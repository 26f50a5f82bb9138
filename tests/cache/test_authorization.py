"""Nothing that is kept or in flight is a way round a signature."""

from __future__ import annotations

import asyncio

import pytest

from embedding.contract.canonical import Signable
from embedding.contract.keys import Keyring
from embedding.contract.requests import Item
from embedding.contract.signatures import Verifier, sign_v2
from embedding.errors import AuthFailed
from embedding.pipeline import JobDownloads
from tests.cache.known import (
    LARGE,
    PICTURE,
    SAME_BY_URL,
    TEXT,
    TOO_LONG,
    URL,
)
from tests.fakes import fake_actions, png
from tests.test_pipeline import Held, allow, embed_all


KEYRING = Keyring.parse("an-example-secret-of-at-least-32-bytes")


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

    @pytest.mark.parametrize(
        ("item", "signable"),
        [
            (PICTURE, Signable(image_bytes=png())),
            (SAME_BY_URL, Signable(image_url=URL.format(0))),
            (TEXT, Signable(text="a red circle")),
        ],
        ids=["base64", "url", "text"],
    )
    def test_every_item_is_judged_by_what_it_sent(self, pipeline, item, signable):
        """Of three equal items, now and later, each is judged once, by its own bytes, URL or text."""
        judged = []

        async def scenario():
            await embed_all(pipeline, [item] * 2, authorize=lambda *args: judged.append(args))
            await embed_all(pipeline, [item], authorize=lambda *args: judged.append(args))

        asyncio.run(scenario())

        assert judged == [(item, signable)] * 3

    def test_refused_item_frees_its_twins_bytes(self, pipeline):
        """An item that is refused or served counts as done with its URL, so nothing is kept for it."""
        downloads = JobDownloads([SAME_BY_URL.image_url] * 3)

        def refuse(_item, _signable):
            raise AuthFailed("no")

        async def scenario():
            for _ in range(2):
                await pipeline.embed(SAME_BY_URL, allow, downloads)
            with pytest.raises(AuthFailed):
                await pipeline.embed(SAME_BY_URL, refuse, downloads)

        asyncio.run(scenario())

        assert downloads._fetches == {}

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
