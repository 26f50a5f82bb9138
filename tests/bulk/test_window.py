"""How many jobs are in flight: when the window grows, when it shrinks, how it comes back; and their pace."""

from __future__ import annotations

import asyncio

import pytest

from embedding.client.bulk.remote import PacedWire
from embedding.client.bulk.window import HELD_BYTES, LEAST_JOBS, Window
from embedding.client.errors import Unreachable


def test_window_stays_where_jobs_wait():
    """Jobs that take long, because they wait at a worker, are not joined by more."""
    window = Window(100)
    for ended, size in ((1, 32), (100, 64)):
        window.jobs, window.ended = window.size, ended
        window._looked_s -= 2.0
        window.look({"jobs": {"inQueue": 0}, "workers": {"ready": 1}})
        assert window.size == size


def test_window_grows_where_workers_are_idle():
    """Slow jobs are joined by more where a worker has none, and not where all are busy."""
    window = Window(100)
    for idle, size in ((0, 32), (1, 64)):
        window.jobs, window.ended = window.size, 1
        window._looked_s -= 60.0
        window.look({"jobs": {"inQueue": 0}, "workers": {"ready": 9, "idle": idle}})
        assert window.size == size


@pytest.mark.parametrize("health", [{}, None, {"jobs": {}, "workers": {}}, {"jobs": 1, "workers": 1}])
def test_window_stays_where_health_says_nothing(health):
    """An answer that is no report of health changes nothing."""
    window = Window(100)
    window.jobs = window.size
    window.look(health)

    assert window.size == 32


def test_window_grows_while_the_queue_is_short():
    """The window doubles while it is full and the workers would soon be idle, up to its limit."""
    window = Window(100)
    sizes = []
    for queued, ready in ((3, 1), (4, 1), (7, 2), (8, 2), (0, 0)):
        window.jobs = window.size
        window.look({"jobs": {"inQueue": queued}, "workers": {"ready": ready}})
        sizes.append(window.size)

    assert sizes == [64, 64, 100, 100, 100]


def test_window_shrinks_once_for_many_refusals():
    """Refusals for too many requests halve it once, never below a few, and it does not grow at once."""
    window = Window(100)
    for _ in range(20):
        window.refuse()
    window.jobs = window.size
    window.look({"jobs": {"inQueue": 0}, "workers": {"ready": 1}})
    halved = window.size
    for _ in range(5):
        window._calm_until_s = 0
        window.refuse()

    assert (halved, window.size) == (16, LEAST_JOBS)


@pytest.mark.parametrize(
    ("held", "has_room"), [(HELD_BYTES - 11, True), (HELD_BYTES - 10, True), (HELD_BYTES - 9, False)]
)
def test_window_bounds_bytes(held, has_room):
    """Payloads in flight are bounded, and one job may always run."""
    window = Window(100)
    window.enter(held)

    assert window.has_room(10) is has_room
    window.leave(held)
    assert window.has_room(2 * HELD_BYTES)


def test_window_comes_back_after_refusals():
    """What a refusal took comes back by one job for each window that ends calmly, and then no more."""
    window = Window(8, size=8)
    window.refuse()
    sizes = []
    for is_calm in (False, True):
        window._calm_until_s *= not is_calm
        for _ in range(40):
            window.enter(1)
            window.leave(1)
            sizes.append(window.size)

    assert sizes == [4] * 43 + [5] * 5 + [6] * 6 + [7] * 7 + [8] * 19


def test_turn_that_comes_too_late():
    """A request waits for its turn no longer than its call: of many jobs to cancel, each has its seconds."""

    async def cancel():
        wire = PacedWire(None, Window(8))
        wire._paces["cancel"]._next_s = asyncio.get_running_loop().time() + 600
        async with asyncio.timeout(60):
            await wire.send("POST", "http://127.0.0.1:9/v2/id/cancel/1", wire.attempts(0.01), bytes)

    with pytest.raises(Unreachable, match="nothing came before the time was over"):
        asyncio.run(cancel())
