"""How far a job is, is told for as long as the platform answers."""

from __future__ import annotations

import asyncio

from embedding.serve import progress


def test_an_update_that_is_not_answered(monkeypatch):
    """After one that is not answered in time no other is sent for that job; another job's are."""
    sent = []

    async def post(_session, job, told):
        sent.append((job["id"], told))
        await asyncio.sleep(10 if told == 2 else 0)

    monkeypatch.setattr("runpod.serverless.modules.rp_progress._async_progress_update", post)
    monkeypatch.setattr(progress, "POST_S", 0.05)

    async def scenario():
        first, second = progress.reporter({"id": "a"}), progress.reporter({"id": "b"})
        for told in (1, 2, 3):
            await first(told)
        await second(4)

    asyncio.run(scenario())
    assert sent == [("a", 1), ("a", 2), ("b", 4)]
