"""One holds a lease at a time, and a holder that is gone holds up nobody."""

from __future__ import annotations

import os
import threading
import time

import pytest

from embedding.operator.lease import BEAT_S, LOOK_S, SILENT_S, Lease, LeaseLost


FOREIGN = "f" * 32 + " 000000000001"


def lease(path, **options):
    """Return a lease that beats ten times a second, and takes half a second of silence for death."""
    return Lease(path, **{"beat_s": 0.05, "silent_s": 0.5} | options)


def nobody_waits():
    """Say that this was not to be waited for."""
    pytest.fail("waited")


def test_free(tmp_path):
    """One that is free is held at once, and free again afterwards."""
    for _ in range(2):
        with lease(tmp_path / "l").held(nobody_waits):
            assert (tmp_path / "l").exists()
        assert list(tmp_path.iterdir()) == []


def test_silence_is_longer_than_a_beat():
    """A holder has several chances to be heard, and looks are more often than that."""
    assert SILENT_S >= 10 * BEAT_S and LOOK_S < BEAT_S


def test_one_at_a_time(tmp_path):
    """Of four threads that want it, none meets another."""
    inside, met = [], []

    def work():
        with lease(tmp_path / "l", silent_s=30).held(lambda: None):
            inside.append(1)
            met.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert met == [1] * 4


def test_silent_on_another_host(tmp_path):
    """One of another host is waited for, and taken when it was silent for so long on the waiter's clock."""
    (tmp_path / "l").write_text(FOREIGN)
    os.utime(tmp_path / "l", (1, 1))  # no clock of another is trusted
    waits = []

    started_s = time.monotonic()
    with lease(tmp_path / "l").held(lambda: waits.append(1)):
        waited_s = time.monotonic() - started_s
    assert 0.5 <= waited_s < 3
    assert waits


def test_alive_on_another_host(tmp_path):
    """As long as its count goes on, it is waited for."""
    ended = threading.Event()

    def beat():
        for count in range(12):
            (tmp_path / "l").write_text(f"{FOREIGN[:-12]}{count:012}")
            time.sleep(0.1)
        ended.set()
        (tmp_path / "l").unlink()

    beating = threading.Thread(target=beat)
    beating.start()
    time.sleep(0.05)
    with lease(tmp_path / "l").held(lambda: None):
        assert ended.is_set()
    beating.join()


def test_lost(tmp_path):
    """A holder whose lease was taken notices, and leaves the other's alone."""
    mine = lease(tmp_path / "l")
    with mine.held(nobody_waits):
        mine.check()
        (tmp_path / "l").unlink()
        (tmp_path / "l").write_text(FOREIGN)
        with pytest.raises(LeaseLost):
            mine.check()
    assert (tmp_path / "l").read_text() == FOREIGN


def test_held_again(tmp_path):
    """One that was lost can be taken again by the same worker."""
    mine = lease(tmp_path / "l")
    with mine.held(nobody_waits):
        (tmp_path / "l").unlink()
        time.sleep(0.3)
    with mine.held(nobody_waits):
        mine.check()


def test_made_and_never_written(tmp_path):
    """A lease whose maker died before it wrote a word is taken after the silence too."""
    (tmp_path / "l").touch()

    with lease(tmp_path / "l").held(lambda: None):
        assert (tmp_path / "l").read_text()


def test_no_place_for_it(tmp_path):
    """Where it cannot be made, that is said."""
    with (
        pytest.raises(OSError, match="No such file or directory"),
        lease(tmp_path / "x" / "l").held(nobody_waits),
    ):
        pass
