"""One worker at a time does a piece of work on a volume that several share, and none waits for the dead.

A lease is a file that only one can create. Its holder writes a count into it, once a second. Who waits reads
it on a clock of its own, since the hosts' clocks differ: a count that stands still for SILENT_S is a dead
holder's, and the lease is moved away, which again only one can do. `flock` does not reach across hosts on
every volume, so it decides nothing between them; but on one host it tells at once that a holder is dead.

A holder that was only slow can lose its lease to another. It notices within a second and must stop; until
then two do the same work, which whoever uses a lease must bear.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BEAT_S: Final = 1.0
SILENT_S: Final = 15.0  # longer than a network volume stalls; the price of a killed worker on another host
LOOK_S: Final = 0.3
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class LeaseLost(Exception):
    """Another took the lease, because this holder was silent for too long."""


class Lease:
    """The right to do the work that *path* stands for, while it is held."""

    def __init__(self, path: Path, *, beat_s: float = BEAT_S, silent_s: float = SILENT_S) -> None:
        self._path, self._beat_s, self._silent_s = path, beat_s, silent_s
        self._holder = uuid.uuid4().hex
        self._lost, self._ended = threading.Event(), threading.Event()
        self._beats = 0

    @contextmanager
    def held(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the lease in the block; *waiting* is called again and again until it is this one's.

        Raises OSError where the volume cannot be written.
        """
        descriptor = self._acquire(waiting)
        self._lost, self._ended = threading.Event(), threading.Event()
        beating = threading.Thread(target=self._beat, args=(descriptor,), name="lease", daemon=True)
        beating.start()
        try:
            yield
        finally:
            self._ended.set()
            beating.join()
            if self._read()[0] == self._holder:
                self._path.unlink(missing_ok=True)
            os.close(descriptor)

    def check(self) -> None:
        """Raise LeaseLost if another has taken the lease."""
        if self._lost.is_set():
            raise LeaseLost

    def _acquire(self, waiting: Callable[[], None]) -> int:
        seen, seen_s = [""], time.monotonic()
        while True:
            if (descriptor := self._create()) is not None:
                return descriptor
            found = self._read()
            if found != seen:
                seen, seen_s = found, time.monotonic()
            if time.monotonic() - seen_s > self._silent_s or self._died_here(found):
                self._take_away(found)
                continue
            waiting()
            time.sleep(LOOK_S)

    def _create(self) -> int | None:
        try:
            descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            return None
        with suppress(OSError):  # a volume without flock
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._write(descriptor)
        return descriptor

    def _write(self, descriptor: int) -> None:
        self._beats += 1
        os.pwrite(descriptor, f"{self._holder} {_boot_id()} {self._beats:012}".encode(), 0)
        os.fsync(descriptor)

    def _read(self) -> list[str]:
        """Return holder, boot and count; they are empty while the lease is being made, or is gone."""
        with suppress(OSError):
            return [*self._path.read_text(encoding="ascii", errors="replace").split(), "", "", ""][:3]
        return ["", "", ""]

    def _died_here(self, found: list[str]) -> bool:
        """Whether the holder was a process of this host, and is gone."""
        if not found[1] or found[1] != _boot_id():
            return False
        with suppress(OSError):
            probe = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
            finally:
                os.close(probe)
            return self._read() == found
        return False

    def _take_away(self, judged: list[str]) -> None:
        """Move the dead holder's lease away; of several who try, one succeeds."""
        aside = self._path.with_name(f"{self._path.name}.{self._holder}")
        if self._read() != judged:
            return
        with suppress(FileNotFoundError):
            self._path.rename(aside)
            aside.unlink()

    def _beat(self, descriptor: int) -> None:
        while not self._ended.wait(self._beat_s):
            if self._read()[0] != self._holder:
                self._lost.set()
                return
            with suppress(OSError):  # a volume that is full or away for a moment: silence tells the others
                self._write(descriptor)


def _boot_id() -> str:
    """Return what names this host until it is started anew, empty where the system has no such name."""
    with suppress(OSError):
        return _BOOT_ID.read_text(encoding="ascii").strip()
    return ""
