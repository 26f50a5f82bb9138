"""What a command that waits for a worker tells meanwhile: nothing at first, then what the client logs.

That is each attempt that failed, and how a job of the queue stands.
"""

from __future__ import annotations

import logging
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final


if TYPE_CHECKING:
    from collections.abc import Iterator

LOGGER: Final = "embedding.client"
SILENT_S: Final = 1.5  # who gets an answer within it need not hear of a failed attempt


class _Waits(logging.Handler):
    """Keeps the last message until it is `due`, and from then on tells each on stderr."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._is_due, self._last = False, ""

    def due(self) -> None:
        """Tell what was kept, and all that comes."""
        self.acquire()
        self._is_due = True
        self._tell()
        self.release()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep or tell *record*."""
        self._last = record.getMessage()
        if self._is_due:
            self._tell()

    def _tell(self) -> None:
        if self._last:
            print(self._last, file=sys.stderr, flush=True)


@contextmanager
def telling_of_waits() -> Iterator[None]:
    """Tell on stderr, from a moment on, what the client waits for within."""
    log, waits = logging.getLogger(LOGGER), _Waits()
    before = log.level
    log.addHandler(waits)
    log.setLevel(logging.INFO)
    timer = threading.Timer(SILENT_S, waits.due)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        log.removeHandler(waits)
        log.setLevel(before)
