"""What is kept and for how long, what has one key, and who waits for whose work."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import tracemalloc
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding.cache import ENTRY_BYTES, Cache, Flights, Vector, image_key, text_key
from embedding.errors import DecodeError


DIM = 512
EACH = 2560  # 512 numbers, and what an entry costs beside them


def vector(number=0, dim=DIM):
    """Return a vector to keep, told from others by its numbers."""
    features = np.full(dim, number, np.float32)
    features.setflags(write=False)
    return Vector(features, tokens=5, truncated=False)


def key(number):
    """Return a key, as long as real ones."""
    return image_key(str(number).encode())


class TestKeys:
    @given(first=st.binary(), second=st.binary())
    def test_images_share_a_key_only_if_equal(self, first, second):
        """Equal bytes have one key, however they came; others have another."""
        assert (image_key(first) == image_key(bytes(bytearray(second)))) is (first == second)

    @given(
        first=st.tuples(st.text(st.characters()), st.booleans()),
        second=st.tuples(st.text(st.characters()), st.booleans()),
    )
    def test_texts_share_a_key_only_if_equal(self, first, second):
        """Both text and `truncate` must be equal, in texts that no UTF-8 can write too."""
        assert (text_key(*first) == text_key(*second)) is (first == second)

    @given(text=st.text(st.characters()), truncate=st.booleans(), prefix=st.sampled_from([b"", b"text:"]))
    def test_no_image_has_the_key_of_a_text(self, text, truncate, prefix):
        """An image made of a text's bytes is no text, whatever is put before them."""
        assert image_key(prefix + text.encode(errors="surrogatepass")) != text_key(text, truncate)

    @pytest.mark.parametrize(
        "data", [b"text, whole:x", b"text, may be cut:x", b"x"], ids=["whole", "cut", "bare"]
    )
    def test_a_prefix_sent_by_a_stranger_changes_nothing(self, data):
        """What stands in front of a text when it is hashed does not make an image that text."""
        keys = {image_key(data), image_key(b"image:" + data)}

        assert keys.isdisjoint(
            {text_key(text, cut) for text in ("x", data.decode()) for cut in (True, False)}
        )

    def test_what_is_hashed(self):
        """Kind and option, then the bytes."""
        hashed = [b"image:x", b"text, may be cut:x", b"text, whole:x"]

        assert [image_key(b"x"), text_key("x", True), text_key("x", False)] == [
            hashlib.sha256(data).digest() for data in hashed
        ]

    def test_surrogates_are_told_from_what_they_would_pair_to(self):
        """Two lone halves are another text than the character they would make."""
        assert text_key("\ud83d\ude00", True) != text_key("\U0001f600", True)


class TestBound:
    @pytest.mark.parametrize(("over", "kept"), [(-1, 2), (0, 3), (1, 3)], ids=["n-1", "n", "n+1"])
    def test_three_vectors_need_the_bytes_of_three(self, over, kept):
        """One byte less than three need keeps two."""
        cache = Cache(3 * EACH + over)
        for number in range(3):
            cache.put(key(number), vector(number))

        assert (len(cache), cache.bytes) == (kept, kept * EACH)

    @pytest.mark.parametrize(("over", "kept"), [(-1, 0), (0, 1), (1, 1)], ids=["n-1", "n", "n+1"])
    def test_what_does_not_fit_alone_is_not_kept(self, over, kept):
        """A vector larger than the bound is not kept, and drives nothing out."""
        cache = Cache(EACH + over)
        cache.put(key("small"), vector(dim=1))
        cache.put(key("large"), vector())

        assert (cache.get(key("large")) is None) == (not kept)
        assert (cache.get(key("small")) is None) == kept

    def test_putting_again_replaces(self):
        """A key has one vector, the last, and is charged once."""
        cache = Cache(10 * EACH)
        cache.put(key(1), vector(1, dim=8))
        cache.put(key(1), vector(2))

        assert cache.get(key(1)).features[0] == 2
        assert (len(cache), cache.bytes) == (1, EACH)

    @pytest.mark.parametrize("dim", [512, 1024])
    def test_memory_is_really_bounded(self, dim):
        """Ten times as many vectors as fit take no more memory than was allowed, and not a half less."""
        max_bytes = 4_000_000
        cache = Cache(max_bytes)
        tracemalloc.start()
        for number in range(10 * max_bytes // (4 * dim + ENTRY_BYTES)):
            cache.put(key(number), vector(number, dim))
        used, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

        assert cache.bytes <= max_bytes
        # Threads of other tests may allocate meanwhile.
        assert max_bytes / 2 < used <= peak <= 1.05 * max_bytes


class TestOrder:
    def test_the_one_asked_for_longest_ago_goes_first(self):
        """Asking for a vector keeps it; the others go in the order in which they came."""
        cache = Cache(3 * EACH)
        for number in range(3):
            cache.put(key(number), vector(number))
        cache.get(key(0))
        cache.put(key(3), vector(3))

        assert [cache.get(key(number)) is not None for number in range(4)] == [True, False, True, True]

    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 6), st.integers(1, 4)), max_size=60))
    def test_any_order_of_asking_and_keeping(self, steps):
        """It holds what a plain list of the most recent would, and charges for exactly that."""
        cache, recent, max_bytes = Cache(4 * ENTRY_BYTES), [], 4 * ENTRY_BYTES
        for is_put, name, dim in steps:
            known = dict(recent)
            if is_put:
                recent = [(n, d) for n, d in recent if n != name] + [(name, dim)]
                while sum(4 * d + ENTRY_BYTES for _, d in recent) > max_bytes:
                    recent.pop(0)
                cache.put(key(name), vector(name, dim))
            else:
                found = cache.get(key(name))
                assert (found and len(found.features)) == known.get(name)
                recent.sort(key=lambda entry: entry[0] == name)
            assert cache.bytes == sum(4 * d + ENTRY_BYTES for _, d in recent)

        assert [name for name in range(7) if cache.get(key(name))] == sorted(name for name, _ in recent)


class Work:
    """Work that waits at a gate, and counts how often it was begun and cancelled."""

    def __init__(self, outcome="done") -> None:
        self.begun = self.cancelled = 0
        self.gate = asyncio.Event()
        self._outcome = outcome

    async def __call__(self) -> str:
        self.begun += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


async def ask(flights, work, name="a"):
    """Wait for what is in progress under *name*, or begin *work*."""
    return await flights.wait(flights.find(key(name)) or flights.begin(key(name), work()))


async def settle():
    """Let everything that can run do so."""
    for _ in range(10):
        await asyncio.sleep(0)


class TestFlights:
    def test_many_waiters_one_work(self):
        """Ten who ask meanwhile share it; who asks later begins anew."""

        async def scenario():
            flights, work = Flights(), Work()
            waiters = [asyncio.ensure_future(ask(flights, work)) for _ in range(10)]
            await settle()
            work.gate.set()
            shared = await asyncio.gather(*waiters), work.begun
            await ask(flights, work)
            return shared, work.begun

        assert asyncio.run(scenario()) == ((["done"] * 10, 1), 2)

    @pytest.mark.parametrize("gone", [[0], [1], [0, 1], [1, 2]], ids=str)
    def test_who_stays_is_served(self, gone):
        """Whichever of three are cancelled, the first too, the others get the result of one work."""

        async def scenario():
            flights, work = Flights(), Work()
            waiters = [asyncio.ensure_future(ask(flights, work)) for _ in range(3)]
            await settle()
            for number in gone:
                waiters[number].cancel()
            await settle()
            work.gate.set()
            done = await asyncio.gather(*waiters, return_exceptions=True)
            return [outcome == "done" for outcome in done], work.begun, work.cancelled

        assert asyncio.run(scenario()) == ([number not in gone for number in range(3)], 1, 0)

    def test_when_all_are_gone_the_work_is_dropped(self):
        """It is cancelled, and who asks in the same moment begins anew."""

        async def scenario():
            flights, work = Flights(), Work()
            waiters = [asyncio.ensure_future(ask(flights, work)) for _ in range(3)]
            await settle()
            for waiter in waiters:
                waiter.cancel()
            await asyncio.wait(waiters)
            late = asyncio.ensure_future(ask(flights, work))
            await settle()
            work.gate.set()
            return await late, work.begun, work.cancelled

        assert asyncio.run(scenario()) == ("done", 2, 1)

    def test_an_error_reaches_all_and_is_forgotten(self):
        """Three who wait are told one error; who asks before they have woken begins work that others find."""

        async def scenario():
            flights, bad, good = Flights(), Work(DecodeError("damaged")), Work()
            waiters = [asyncio.ensure_future(ask(flights, bad)) for _ in range(3)]
            await settle()
            seen = []

            def ask_before_they_wake(_task):
                seen.append(flights.find(key("a")))
                seen.append(flights.begin(key("a"), good()))

            flights.find(key("a")).task.add_done_callback(ask_before_they_wake)
            bad.gate.set()
            told = await asyncio.gather(*waiters, return_exceptions=True)
            late = asyncio.ensure_future(ask(flights, bad))
            await settle()
            good.gate.set()
            results = await flights.wait(seen[1]), await late
            return [str(error) for error in told], seen[0], results, bad.begun, flights._flights

        assert asyncio.run(scenario()) == (["damaged"] * 3, None, ("done", "done"), 1, {})

    def test_an_error_is_freed_at_once(self):
        """No ring of references keeps an error, and with it a stranger's file, until garbage is collected."""

        async def fail():
            raise DecodeError("damaged")

        async def scenario():
            flights = Flights()
            waiters = [asyncio.ensure_future(ask(flights, fail)) for _ in range(3)]
            await asyncio.wait(waiters)
            seen = [weakref.ref(waiter.exception()) for waiter in waiters]
            del waiters
            await settle()
            return [error() for error in seen]

        gc.disable()
        try:
            assert asyncio.run(scenario()) == [None] * 3
        finally:
            gc.enable()

    def test_names_are_apart(self):
        """Other names are other work."""

        async def scenario():
            flights, work = Flights(), Work()
            work.gate.set()
            await asyncio.gather(*(ask(flights, work, name) for name in "abc"))
            return work.begun

        assert asyncio.run(scenario()) == 3
