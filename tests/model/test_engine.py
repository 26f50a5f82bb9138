"""The engine: who shares a forward with whom, and who is spared when it fails."""

from __future__ import annotations

import os
import threading
import time
import weakref

import numpy as np
import pytest
import torch

from embedding.errors import InferenceError, Overloaded, StartupError
from embedding.model import cores as cores_module
from embedding.model.cores import (
    QUICK_FORWARD_S,
    ForwardLimit,
    forward_size,
    lane_threads,
    leave_cpu_to_the_engine,
)
from embedding.model.engine import Engine


class Tracked(np.ndarray):
    """An array that can be watched being freed."""


class Recorder:
    """An encoder whose features are the value itself; it records its batches and can be held."""

    def __init__(self) -> None:
        self.batches = []
        self.gate = threading.Event()
        self.gate.set()

    def embed_images(self, pixels):
        return self._embed("image", pixels)

    def embed_texts(self, tokens):
        return self._embed("text", tokens)

    def _embed(self, kind, values):
        self.gate.wait(10)
        self.batches.append((kind, list(values)))
        if "poison" in values:
            msg = "a forward broke"
            raise RuntimeError(msg)
        return np.array([[np.nan if value == "nan" else float(value), 1.0] for value in values], np.float32)


@pytest.fixture
def encoder():
    """Return a recording encoder."""
    return Recorder()


@pytest.fixture
def engine(encoder):
    """Return an engine of small limits, closed at the end."""
    engine = Engine(lambda: encoder, max_forward_items=4, max_waiting=8)
    yield engine
    encoder.gate.set()
    engine.close()


def hold(encoder, engine):
    """Keep the device busy with one image until the gate opens; return that image's future."""
    encoder.gate.clear()
    first = engine.submit("image", 0)
    while engine.depth():
        time.sleep(0.001)
    return first


class TestBatching:
    def test_idle_engine_runs_one_item_at_once(self, encoder, engine):
        """Nothing waits for company: a single item is a batch of one."""
        assert engine.submit("image", 5).result(5).vector[0] == 5
        assert encoder.batches == [("image", [5])]

    def test_busy_engine_collects_what_waits(self, encoder, engine):
        """Items that arrived during a forward share the next one, up to the batch size, oldest first."""
        hold(encoder, engine)
        futures = [engine.submit("image", value) for value in range(1, 7)]
        encoder.gate.set()

        assert [future.result(5).vector[0] for future in futures] == [1, 2, 3, 4, 5, 6]
        assert encoder.batches[1:] == [("image", [1, 2, 3, 4]), ("image", [5, 6])]

    def test_oldest_kind_goes_first(self, encoder, engine):
        """Images and texts never share a forward; the kind that waited longest is served."""
        hold(encoder, engine)
        futures = [engine.submit(kind, 1) for kind in ("text", "image", "text")]
        encoder.gate.set()
        [future.result(5) for future in futures]

        assert encoder.batches[1:] == [("text", [1, 1]), ("image", [1])]

    def test_tells_where_the_time_went(self, engine):
        """Each item learns its wait and its forward."""
        done = engine.submit("text", 3).result(5)

        assert done.queue_ms >= 0
        assert done.inference_ms >= 0


class TestTally:
    def test_forwards_are_counted_by_kind_and_size(self, encoder, engine):
        """Every forward counts once, with its items, before any of them is answered."""
        hold(encoder, engine)
        futures = [engine.submit(kind, 1) for kind in ("image",) * 5 + ("text",)]
        encoder.gate.set()
        [future.result(5) for future in futures]

        assert engine.tally().forwards == {("image", 1): 2, ("image", 4): 1, ("text", 1): 1}
        assert engine.tally().failed_forwards == 0

    def test_halves_of_a_failed_forward_count(self, encoder, engine):
        """Each half is a forward of its own, down to the culprit; those that held it failed."""
        hold(encoder, engine)
        futures = [engine.submit("image", value) for value in ("poison", 1, 2, 3)]
        encoder.gate.set()
        [future.exception(5) for future in futures]

        assert engine.tally().forwards == {("image", 1): 3, ("image", 4): 1, ("image", 2): 2}
        assert engine.tally().failed_forwards == 3

    def test_cancelled_work_does_not_count(self, encoder, engine):
        """What is dropped before it runs is in no forward."""
        hold(encoder, engine)
        gone, stays = engine.submit("text", 1), engine.submit("text", 2)
        gone.cancel()
        encoder.gate.set()
        stays.result(5)

        assert engine.tally().forwards == {("image", 1): 1, ("text", 1): 1}

    def test_busy_time_goes_on_during_a_forward(self, encoder):
        """A lane is busy from the start of a forward to its end; one that is idle is not."""
        engine = Engine(lambda: encoder, lanes=2)
        assert engine.tally().busy_s == [0, 0]
        began_s = time.monotonic()
        held = hold(encoder, engine)
        time.sleep(0.05)
        during_s = engine.tally().busy_s[0]
        encoder.gate.set()
        held.result(5)
        engine.close()
        took_s = time.monotonic() - began_s
        first_s, second_s = engine.tally().busy_s

        assert 0.05 <= during_s <= first_s <= took_s
        assert second_s == 0
        assert engine.tally().busy_s == [first_s, 0]


class TestThreads:
    def test_device_thread_has_the_cores(self, encoder):
        """Once the starting thread has left them to the engine, only the device thread has threads."""
        before = torch.get_num_threads()
        seen = []
        encoder.embed_images = lambda values: (
            seen.append(torch.get_num_threads()) or np.ones((len(values), 2))
        )
        try:
            threads = leave_cpu_to_the_engine()
            engine = Engine(lambda: encoder, max_forward_items=4, max_waiting=8, cpu_threads=threads)
            engine.submit("image", 1).result(5)
            engine.close()

            assert (threads, seen, torch.get_num_threads()) == (before, [before], 1)
        finally:
            torch.set_num_threads(before)


class TestFailure:
    @pytest.mark.parametrize("place", range(4))
    def test_culprit_fails_alone(self, encoder, engine, place):
        """One bad item of a batch gets the error, its neighbours their vectors."""
        hold(encoder, engine)
        values = [1, 2, 3]
        values.insert(place, "poison")
        futures = [engine.submit("image", value) for value in values]
        encoder.gate.set()

        for value, future in zip(values, futures, strict=True):
            if value == "poison":
                with pytest.raises(InferenceError):
                    future.result(5)
            else:
                assert future.result(5).vector[0] == value

    def test_device_thread_survives(self, engine):
        """After a failure the engine embeds as before."""
        with pytest.raises(InferenceError):
            engine.submit("text", "poison").result(5)

        assert engine.submit("text", 7).result(5).vector[0] == 7
        assert engine.is_healthy()

    def test_failed_forward_leaves_its_memory_to_the_halves(self, engine, encoder):
        """What a failed forward had allocated is free again when its halves run."""
        allocated = weakref.WeakSet()
        alive = []

        def embed_images(values):
            alive.append(len(allocated))
            tensor = np.zeros(10).view(Tracked)
            allocated.add(tensor)
            return Recorder._embed(encoder, "image", values)

        hold(encoder, engine)
        encoder.embed_images = embed_images
        futures = [engine.submit("image", value) for value in (1, 2, "poison", 4)]
        encoder.gate.set()
        [future.exception(5) for future in futures]

        assert alive == [0] * len(alive)

    def test_lost_device_is_told(self, engine, encoder):
        """After an error that a device does not recover from, the engine says that it is broken."""

        def embed_images(_values):
            raise torch.AcceleratorError("CUDA error: device-side assert triggered")

        encoder.embed_images = embed_images
        with pytest.raises(InferenceError):
            engine.submit("image", 1).result(5)

        assert not engine.is_healthy()

    def test_forward_that_does_not_return_shows(self, encoder):
        """A device that hangs is unhealthy for as long as it does; one that is only slow is not."""
        engine = Engine(lambda: encoder, max_forward_s=0.2)
        assert engine.is_healthy()
        held = hold(encoder, engine)
        assert engine.is_healthy()
        time.sleep(0.25)

        assert not engine.is_healthy()
        encoder.gate.set()
        held.result(5)
        engine.submit("image", 1).result(5)
        assert engine.is_healthy()
        engine.close()

    def test_vector_that_is_not_finite_is_an_error(self, engine):
        """NaN never leaves the engine."""
        with pytest.raises(InferenceError, match="no finite vector"):
            engine.submit("image", "nan").result(5)


class TestBounds:
    @pytest.mark.parametrize(("waiting", "accepted"), [(7, True), (8, False)])
    def test_refuses_one_more_than_fits(self, encoder, engine, waiting, accepted):
        """With 8 places, an eighth item waits and a ninth is refused."""
        hold(encoder, engine)
        for _ in range(waiting):
            engine.submit("image", 1)

        if accepted:
            engine.submit("image", 1)
        else:
            with pytest.raises(Overloaded):
                engine.submit("image", 1)

    def test_cancelled_work_gives_up_its_place(self, encoder, engine):
        """Work that was cancelled does not count against those who come after."""
        hold(encoder, engine)
        [engine.submit("image", 1).cancel() for _ in range(8)]

        assert engine.submit("image", 1)

    def test_cancelled_work_is_dropped(self, encoder, engine):
        """Work whose caller has gone is not run."""
        hold(encoder, engine)
        gone, stays = engine.submit("image", 1), engine.submit("image", 2)
        gone.cancel()
        encoder.gate.set()
        stays.result(5)

        assert encoder.batches[1:] == [("image", [2])]

    def test_close_finishes_what_waits(self, encoder):
        """Closing loses nothing that was accepted, and accepts nothing more."""
        engine = Engine(lambda: encoder, max_forward_items=4, max_waiting=8)
        futures = [engine.submit("image", value) for value in range(6)]
        engine.close()

        assert [future.result(0).vector[0] for future in futures] == [0, 1, 2, 3, 4, 5]
        with pytest.raises(Overloaded):
            engine.submit("image", 1)


class TestLanes:
    def test_what_comes_alone_runs_on_the_first(self, encoder):
        """The second lane takes nothing while the first is idle."""
        names = []
        encoder.embed_images = lambda values: names.append(threading.current_thread().name) or ones(values)
        engine = Engine(lambda: encoder, max_forward_items=4, max_waiting=8, lanes=2, cpu_threads=2)
        for value in range(20):
            engine.submit("image", value).result(5)
        engine.close()

        assert set(names) == {"device-0"}

    @pytest.mark.parametrize(("coming", "second_waits"), [(0, True), (1, False)])
    def test_both_run_at_once(self, encoder, coming, second_waits):
        """The second lane serves what comes beside the first, unless what came alone has all cores."""
        engine = Engine(lambda: encoder, max_forward_items=4, max_waiting=8, lanes=2, cpu_threads=2)
        engine.coming = coming
        first = hold(encoder, engine)
        second = engine.submit("image", 2)
        time.sleep(0.05)
        assert engine.depth() == second_waits
        encoder.gate.set()

        assert [first.result(5).vector[0], second.result(5).vector[0]] == [0, 2]
        assert engine.is_healthy()
        engine.close()
        assert not engine.is_healthy()

    @pytest.mark.parametrize(
        ("cpu_threads", "first_alone", "first_beside", "second"),
        [(1, 1, 1, 1), (2, 2, 1, 1), (3, 3, 2, 1), (4, 2, 2, 2), (5, 3, 3, 2), (16, 8, 8, 8)],
    )
    def test_threads(self, cpu_threads, first_alone, first_beside, second):
        """The lanes share the cores, and their pools together never exceed them."""
        assert lane_threads(0, cpu_threads, alone=True) == first_alone
        assert lane_threads(0, cpu_threads, alone=False) == first_beside
        assert lane_threads(1, cpu_threads, alone=False) == second
        pools = [threads for threads in (first_alone, second) if threads > 1]
        assert sum(pools) <= cpu_threads

    @pytest.mark.parametrize(
        ("waiting", "idle_lanes", "size"),
        [
            (1, 1, 1), (1, 2, 1), (7, 2, 7), (8, 2, 8), (9, 2, 8), (9, 1, 8), (15, 1, 8), (16, 1, 16),
            (16, 2, 8), (17, 1, 16), (17, 2, 8), (31, 2, 16), (64, 1, 16), (64, 2, 16),
        ],
    )  # fmt: skip
    def test_sizes(self, waiting, idle_lanes, size):
        """Few sizes: all of up to eight, else multiples of eight, shared by idle lanes."""
        assert forward_size(waiting, 16, idle_lanes=idle_lanes) == size

    @pytest.mark.parametrize(
        ("items_in_time", "limit"), [(1, 16), (16, 16), (17, 17), (40, 40), (64, 64), (65, 64), (1000, 64)]
    )
    def test_limit_by_time(self, items_in_time, limit):
        """A forward has as many items as are quick, no fewer than a slow model's, no more than any may."""
        forwards = ForwardLimit(16, 64)
        assert forwards.of("image") == 16
        forwards.learn("image", 16, 16 * QUICK_FORWARD_S / (items_in_time + 0.5))

        assert forwards.of("image") == limit
        assert forwards.of("text") == 16

    def test_limit_follows_recent_forwards(self):
        """One slow forward changes little; many do; one of few items tells nothing."""
        forwards = ForwardLimit(16, 64)
        forwards.learn("image", 8, 8 * QUICK_FORWARD_S / 1000)
        forwards.learn("image", 7, 7.0)
        assert forwards.of("image") == 64
        forwards.learn("image", 8, 8 * QUICK_FORWARD_S / 50)
        assert forwards.of("image") == 64
        for _ in range(20):
            forwards.learn("image", 8, 8 * QUICK_FORWARD_S / 32.5)
        assert forwards.of("image") == 32

    @pytest.mark.parametrize(("pause_s", "largest"), [(0.0, 64), (QUICK_FORWARD_S, 16)])
    def test_quick_models_run_more_at_once(self, encoder, pause_s, largest):
        """An engine runs few at once until a forward has shown that more are quick."""
        encoder.embed_images = lambda values: sizes.append(len(values)) or time.sleep(pause_s) or ones(values)
        sizes = []
        engine = Engine(lambda: encoder, max_forward_items=64, slow_forward_items=16)
        for _ in range(3):
            for future in [engine.submit("image", 1) for _ in range(200)]:
                future.result(10)
        engine.close()

        assert max(sizes) == largest

    @pytest.mark.parametrize(("waiting", "size"), [(1, 1), (3, 3), (4, 3), (9, 3)])
    def test_limit_below_eight(self, waiting, size):
        """A small limit holds."""
        assert forward_size(waiting, 3) == size


@pytest.mark.parametrize(
    ("content", "cores"), [("max 100000", None), ("150000 100000", 1), ("400000 100000", 4), ("", None)]
)
def test_quota_of_a_container(tmp_path, monkeypatch, content, cores):
    """Whole cores of a container's quota count; without one, the machine's."""
    monkeypatch.setattr(cores_module, "CPU_QUOTA", tmp_path / "cpu.max")
    (tmp_path / "cpu.max").write_text(content)

    assert cores_module._quota_cores() == (cores or os.cpu_count())


def test_fault_while_loading_is_raised_where_the_model_is_asked_for():
    """What loading raised is what `loaded` raises, and the engine is not healthy."""

    def load():
        raise StartupError("no weights")

    engine = Engine(load, lanes=2)
    with pytest.raises(StartupError, match="no weights"):
        engine.loaded.result(5)
    while engine.is_healthy():
        time.sleep(0.001)


def ones(values):
    """Return a row for each value."""
    return np.ones((len(values), 2), np.float32)
