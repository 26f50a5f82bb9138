"""The memory that decoders share: what a picture is said to need, and who waits for whom."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from embedding.intake.headers import read_header
from embedding.intake.memory import MemoryBudget, peak_bytes
from tests.intake import hostile
from tests.intake.hostile import GREY, PALETTE, RGB, RGBA, chunk, encode, flat_jpeg, flat_png


APART = [(0,), (1,), (2,)]
PROGRESSIVE = encode(Image.new("RGB", (10, 10)), "JPEG", progressive=True, subsampling=0)
FIRST_SCAN = PROGRESSIVE[: PROGRESSIVE.index(b"\xff\xda", PROGRESSIVE.index(b"\xff\xda") + 2)] + b"\xff\xd9"
NEEDS = [
    (flat_jpeg(10, 10), 4),
    (flat_jpeg(10, 10, sampling=((1, 1),)), 4),
    (flat_jpeg(10, 10, scans=APART), 10),
    (flat_jpeg(10, 10, scans=APART[:1]), 10),
    (FIRST_SCAN, 10),
    (flat_jpeg(10, 10, sampling=((1, 1),) * 4), 8),
    (flat_jpeg(10, 10, sampling=((1, 1),) * 4, scans=[*APART, (3,)]), 12),
    (flat_png(10, 10, GREY), 5),
    (flat_png(10, 10, PALETTE, extra=chunk(b"tRNS", b"\0")), 5),
    (flat_png(10, 10, RGB), 4),
    (flat_png(10, 10, RGBA), 8),
    (flat_png(10, 10, RGB, extra=chunk(b"tRNS", bytes(6))), 12),
    (flat_png(10, 10, RGBA, depth=16), 12),
    (encode(Image.new("P", (10, 10)), "GIF"), 5),
    (encode(Image.new("RGB", (10, 10)), "WEBP"), 17),
]


@pytest.mark.parametrize(("file", "per_pixel"), NEEDS)
def test_a_picture_needs_what_was_measured(file, per_pixel):
    """The header tells how many bytes a pixel takes at the worst."""
    assert peak_bytes(read_header(file)) == 100 * per_pixel


@pytest.mark.parametrize(("size", "at_once"), [(10, 8), (25, 4), (50, 2), (51, 1), (100, 1), (1000, 1)])
def test_no_more_is_held_than_there_is(size, at_once):
    """Eight threads hold parts of a hundred bytes: as many at once as fit, and one whatever it asks for."""
    budget, lock = MemoryBudget(100), threading.Lock()
    now = most = 0

    def work(_number):
        nonlocal now, most
        with budget.hold(size):
            with lock:
                now += 1
                most = max(most, now)
            time.sleep(0.01)
            with lock:
                now -= 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(24)))

    assert most == at_once


def test_a_large_picture_is_not_overtaken_for_ever():
    """While it waits for room, smaller ones that come later wait too."""
    budget, order = MemoryBudget(100), []

    def work(name, size):
        with budget.hold(size):
            order.append(name)

    with ThreadPoolExecutor(2) as threads, budget.hold(50):
        large = threads.submit(work, "large", 100)
        while not budget._turn.locked():
            time.sleep(0.001)
        small = threads.submit(work, "small", 10)
        time.sleep(0.05)

        assert not order
        assert not (large.done() or small.done())
    assert order == ["large", "small"]


def test_a_failure_gives_back_what_it_held():
    """An error inside leaves nothing held."""
    budget = MemoryBudget(100)
    for _ in range(3):
        with pytest.raises(ValueError, match="broken"), budget.hold(100):
            raise ValueError("broken")


def test_errors_keep_nothing_of_the_picture():
    """What a refused picture raises holds no other error, whose traceback would keep its pixels."""
    from embedding.errors import DecodeError  # noqa: PLC0415
    from embedding.intake.image import ImageLimits, Preprocess, decode_image  # noqa: PLC0415

    for file in (flat_jpeg(64, 64)[:-2], flat_png(64, 64, RGBA)[:-60], hostile.gif((8, 8), (8, 8), b"")):
        with pytest.raises(DecodeError) as caught:
            decode_image(file, preprocess=Preprocess(), limits=ImageLimits())

        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
