"""One worker at a time does a piece of work on a volume that several share, and none waits for the dead.

A lease is a file that only one can create. Its holder writes a count into it, once a second. Who waits reads
it on a clock of its own, since the hosts' clocks differ: a count that stands still for SILENT_S is a dead
holder's, and the lease is moved away, which again only one can do. Locks of the file system decide nothing:
they do not reach across hosts on every volume.

A holder that was only slow can lose its lease to another. It notices when it next looks and must stop; until
then two do the same work, which whoever uses a lease must bear.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BEAT_S: Final = 1.0
SILENT_S: Final = 15.0  # longer than a network volume stalls; the price of a host that is lost
LOOK_S: Final = 0.3


class LeaseLost(Exception):
    """Another took the lease, because this holder was silent for too long."""


class Lease:
    """The right to do the work that *path* stands for, while it is held; *holder* names this one alone."""

    def __init__(self, path: Path, *, beat_s: float = BEAT_S, silent_s: float = SILENT_S) -> None:
        self._path, self._beat_s, self._silent_s = path, beat_s, silent_s
        self.holder = uuid.uuid4().hex
        self._beats = 0

    @contextmanager
    def held(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the lease in the block; *waiting* is called again and again until it is this one's.

        Raises OSError where the volume cannot be written.
        """
        descriptor = self._acquire(waiting)
        ended = threading.Event()
        beating = threading.Thread(target=self._beat, args=(descriptor, ended), name="lease", daemon=True)
        beating.start()
        try:
            yield
        finally:
            ended.set()
            beating.join()
            os.close(descriptor)
            if self._is_held():
                self._path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise LeaseLost if another has taken the lease."""
        if not self._is_held():
            raise LeaseLost

    def _acquire(self, waiting: Callable[[], None]) -> int:
        seen, seen_s = "", time.monotonic()
        while True:
            if (descriptor := self._create()) is not None:
                return descriptor
            found = self._read()
            if found != seen:
                seen, seen_s = found, time.monotonic()
            if time.monotonic() - seen_s > self._silent_s:
                self._take_away(found)
                continue
            waiting()
            time.sleep(LOOK_S)

    def _create(self) -> int | None:
        try:
            descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            return None
        self._write(descriptor)
        return descriptor

    def _write(self, descriptor: int) -> None:
        self._beats += 1
        os.pwrite(descriptor, f"{self.holder} {self._beats:012}".encode(), 0)
        os.fsync(descriptor)

    def _read(self) -> str:
        """Return holder and count; nothing while the lease is being made, or is gone."""
        try:
            return self._path.read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            return ""

    def _is_held(self) -> bool:
        return self._read().startswith(self.holder)

    def _take_away(self, judged: str) -> None:
        """Move the dead holder's lease away; of several who try, one succeeds."""
        aside = self._path.with_name(f"{self._path.name}.{self.holder}")
        if self._read() != judged:
            return
        with suppress(FileNotFoundError):
            self._path.rename(aside)
            aside.unlink()

    def _beat(self, descriptor: int, ended: threading.Event) -> None:
        while not ended.wait(self._beat_s):
            with suppress(OSError):  # a volume that is full or away for a moment: silence tells the others
                self._write(descriptor)
