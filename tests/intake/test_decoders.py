"""Decoding in other processes: what comes back, and what is left when one of them, or their owner, ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import BrokenExecutor
from ctypes import c_byte
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import pytest

from embedding.client.bulk.rows import row_of_file
from embedding.errors import DecodeError
from embedding.intake.decoders import Decoders, _Decoder, prepare
from embedding.intake.image import ImageLimits, decode_image
from embedding.intake.preprocess import Preprocess
from tests.bulk.pictures import picture
from tests.intake.hostile import RGB, flat_png


ROOT = Path(__file__).parents[2]
PREPROCESS = Preprocess(size=64)
SLOW = flat_png(6000, 6000, RGB)
OWNER = """
import os, sys
from embedding.intake.decoders import Decoders, prepare
from embedding.intake.limits import ImageLimits
from embedding.intake.preprocess import Preprocess
if __name__ == "__main__":
    prepare()
    decoders = Decoders(2, Preprocess(), ImageLimits())
    decoders.submit([b"no picture"]).result()
    print(*decoders._processes._processes, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def start():
    """Make decoders of one process each, and close them."""
    prepare()
    made = []

    def make(count=1):
        made.append(Decoders(count, PREPROCESS, ImageLimits()))
        return made[-1]

    yield make
    for decoders in made:
        decoders.close()


def test_squares_and_errors_keep_their_places(start, tmp_path):
    """Bytes and files come back as this process would decode them, in order, and each fault in its place."""
    (tmp_path / "a.png").write_bytes(picture(1))
    sources = [picture(3), b"no picture", row_of_file(str(tmp_path / "a.png"), "a"), picture(5)]
    sources.insert(2, row_of_file(str(tmp_path / "gone.png"), "gone"))
    first, damaged, gone, from_file, last = start().submit(sources).result()

    for found, number in ((first, 3), (from_file, 1), (last, 5)):
        here = decode_image(picture(number), preprocess=PREPROCESS, limits=ImageLimits())
        assert np.array_equal(found, here)
    assert isinstance(damaged, DecodeError)
    assert damaged.message == "image is not a JPEG, PNG, WebP or GIF"
    assert isinstance(gone, FileNotFoundError)
    assert gone.filename == str(tmp_path / "gone.png")


def test_a_killed_process_is_told(start):
    """A process that is killed fails what was submitted, at once and not never."""
    decoders = start()
    decoders.submit([b"no picture"]).result()
    waiting = decoders.submit([SLOW] * 8)
    (pid,) = decoders._processes._processes
    os.kill(pid, signal.SIGKILL)

    with pytest.raises(BrokenExecutor):
        waiting.result(timeout=60)


class Dies:
    """A picture whose process is killed when it has taken a lock, or else when the next is read."""

    is_last = False

    def picture(self):
        if self.is_last:
            os.kill(os.getpid(), signal.SIGKILL)
        sys.setprofile(die_with_a_lock)
        return b""


def die_with_a_lock(_, event, called):
    """End this process where a lock was just taken."""
    if event == "c_return" and called.__name__ in ("__enter__", "acquire"):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.usefixtures("start")
def test_closing_waits_for_no_process_that_was_killed():
    """A process that is killed at any moment between two pictures keeps nothing that closing needs."""
    decoders, last = Decoders(1, PREPROCESS, ImageLimits()), Dies()
    last.is_last = True
    with pytest.raises(BrokenExecutor):
        decoders.submit([Dies(), last]).result(timeout=60)
    closing = threading.Thread(target=decoders.close, daemon=True)
    closing.start()
    closing.join(30)

    assert not closing.is_alive()


def test_closing_waits_for_no_job(start):
    """Closing ends a job of many pictures after the one in hand, and drops those that have not begun."""
    decoders = start()
    decoders.submit([b"no picture"]).result()
    running, waiting = decoders.submit([SLOW] * 200), [decoders.submit([SLOW] * 200) for _ in range(4)]
    while not running.running():
        time.sleep(0.01)
    decoders.close()

    assert len(running.result()) < 200
    assert waiting[-1].cancelled()


def test_ctrl_c_is_left_to_the_owner(start):
    """A process goes on after SIGINT, which a terminal sends to all of a command's processes."""
    decoders = start()
    decoders.submit([b"no picture"]).result()
    (pid,) = decoders._processes._processes
    os.kill(pid, signal.SIGINT)

    assert decoders.submit([picture(1)]).result()[0].shape == (64, 64, 3)


def test_ctrl_c_reaches_no_process_that_starts(start):
    """The process that decoders are forked from holds SIGINT back, so that it tells of none at its start."""
    start()
    pid = forkserver._forkserver._forkserver_pid
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())

    assert int(fields["SigBlk"], 16) >> (signal.SIGINT - 1) & 1
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_no_process_outlives_its_owner(tmp_path):
    """Where the owner is killed, its decoders end too."""
    (tmp_path / "owner.py").write_text(OWNER)
    owner = subprocess.Popen(
        [sys.executable, str(tmp_path / "owner.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with owner:
        pids = owner.stdout.readline().split()
        assert pids
        owner.kill()
    until_s = time.monotonic() + 60
    while any(is_running(pid.decode()) for pid in pids) and time.monotonic() < until_s:
        time.sleep(0.05)

    assert not any(is_running(pid.decode()) for pid in pids)


def is_running(pid):
    """Return whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(("size_bytes", "is_alone"), [(99, False), (100, False), (101, True)])
def test_large_pictures_take_turns(size_bytes, is_alone):
    """A picture that needs more than a process's share is decoded while no other such is."""
    large = threading.Lock()
    decoder = _Decoder(PREPROCESS, ImageLimits(), 100, large, c_byte())

    with decoder.hold(size_bytes):
        assert large.locked() is is_alone
    assert not large.locked()
