"""Which connections are kept, how many, for how long, and for whom."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from embedding.intake.limits import FetchLimits
from embedding.intake.pool import Pool
from embedding.intake.urls import Place


A, B, C = (Place("https", f"{name}.test", 443) for name in "abc")


class Connection:
    """What a pool knows of a connection."""

    def __init__(self, place=A, *, clean=True, quiet=True, address="1.1.1.1") -> None:
        self.place = place
        self.address = address
        self.clean = clean
        self.quiet = quiet
        self.closed = False

    def is_clean(self):
        return self.clean

    def is_quiet(self):
        return self.quiet

    def close(self):
        self.closed = True


class Clock:
    """A clock that a test turns."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def make_pool(*, is_allowed=lambda _address: True, clock=None, **limits):
    """Return a pool with *limits*."""
    return Pool(FetchLimits(**limits), is_allowed, clock=clock or Clock())


def kept(pool, *connections):
    """Keep *connections* one after the other; return those still open."""
    for connection in connections:
        pool.keep(connection)
    return [connection for connection in connections if not connection.closed]


class TestTake:
    def test_gives_what_was_kept_last_and_only_once(self):
        """The connection used last is the one least likely to be lost; nobody shares it."""
        pool = make_pool()
        first, second = kept(pool, Connection(), Connection())

        assert [pool.take(A), pool.take(A), pool.take(A)] == [second, first, None]

    @pytest.mark.parametrize(
        "other",
        [Place("http", "a.test", 443), Place("https", "b.test", 443), Place("https", "a.test", 80)],
    )
    def test_keeps_places_apart(self, other):
        """Scheme, host and port must be equal; that the address is, does not count."""
        pool = make_pool()
        pool.keep(Connection(A))

        assert pool.take(other) is None
        assert pool.take(A) is not None

    def test_passes_over_what_is_not_quiet(self):
        """A connection on which something has arrived unasked is closed, and the next one given."""
        pool = make_pool()
        quiet, loud = kept(pool, Connection(), Connection(quiet=False))

        assert pool.take(A) is quiet
        assert loud.closed

    def test_judges_the_address_again(self):
        """A peer that the policy no longer allows is not asked again."""
        allowed = {"1.1.1.1"}
        pool = make_pool(is_allowed=allowed.__contains__)
        connection = Connection()
        pool.keep(connection)
        allowed.clear()

        assert pool.take(A) is None
        assert connection.closed

    @pytest.mark.parametrize(("idle_s", "kept"), [(14.9, True), (15.0, True), (15.1, False)])
    def test_ends_with_the_idle_time(self, idle_s, kept):
        """A connection is given for fifteen seconds, then closed."""
        clock = Clock()
        pool = make_pool(clock=clock, max_idle_s=15)
        connection = Connection()
        pool.keep(connection)
        clock.now_s += idle_s

        assert (pool.take(A) is connection) is kept
        assert connection.closed is not kept

    def test_closes_what_is_too_old_for_whomever(self):
        """Whoever asks, what has waited too long is closed, and what has not stays."""
        clock = Clock()
        pool = make_pool(clock=clock, max_idle_s=15)
        old, young = Connection(A), Connection(B)
        pool.keep(old)
        clock.now_s += 10
        pool.keep(young)
        clock.now_s += 6

        assert pool.take(C) is None
        assert (old.closed, young.closed) == (True, False)


class TestKeep:
    def test_closes_what_is_not_clean(self):
        """A connection whose answer was not read to its end is not kept."""
        pool = make_pool()
        assert kept(pool, Connection(clean=False)) == []

        assert pool.take(A) is None

    @pytest.mark.parametrize("count", [0, 2, 3, 4, 5])
    def test_is_bounded_for_a_place(self, count):
        """Three for a place, not one more; the oldest makes room."""
        connections = [Connection(A) for _ in range(count)]
        others = [Connection(B), Connection(B)]
        pool = make_pool(max_idle_per_host=3)

        assert kept(pool, *others, *connections) == others + connections[-3:]

    @pytest.mark.parametrize("count", [4, 5, 6])
    def test_is_bounded_in_all(self, count):
        """Five in all, not one more; the oldest makes room, whosever it is."""
        connections = [Connection(Place("https", f"{number}.test", 443)) for number in range(count)]
        pool = make_pool(max_idle_connections=5)

        assert kept(pool, *connections) == connections[-5:]

    @pytest.mark.parametrize("limits", [{"max_idle_connections": 0}, {"max_idle_per_host": 0}])
    def test_none_may_be_kept(self, limits):
        """A limit of none keeps none."""
        pool = make_pool(**limits)
        assert kept(pool, Connection()) == []

        assert pool.take(A) is None


class TestClose:
    def test_ends_all_and_keeps_none(self):
        """Closing closes what is idle, and what comes back later."""
        pool = make_pool()
        idle, out = Connection(A), Connection(A)
        pool.keep(idle)
        pool.close()
        pool.keep(out)

        assert idle.closed and out.closed
        assert pool.take(A) is None


def test_no_two_threads_hold_one_connection():
    """Taken by many threads at once, a connection is with one of them at a time, and none is lost."""
    pool = make_pool(max_idle_per_host=4)
    connections = {connection: threading.Lock() for connection in (Connection() for _ in range(4))}
    for connection in connections:
        pool.keep(connection)

    def use(_turn):
        connection = pool.take(A)
        if connection is None:
            return True
        alone = connections[connection].acquire(blocking=False)
        connections[connection].release()
        pool.keep(connection)
        return alone

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(use, range(4000)))
    assert {pool.take(A) for _ in range(4)} == set(connections)
