"""What a command that waits for a worker tells meanwhile: what the client logs.

That is each attempt that failed, and how a job of the queue stands.
"""

from __future__ import annotations

import logging
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Self


if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

LOGGER: Final = "embedding.client"
SILENT_S: Final = 1.5  # who gets an answer within it need not hear of a failed attempt


class Said(logging.Handler):
    """Keeps the *last* message of the client, empty before the first, within `with`."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.last = ""
        self._log = logging.getLogger(LOGGER)
        self._level = self._log.level

    def __enter__(self) -> Self:
        self._log.addHandler(self)
        self._log.setLevel(logging.INFO)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.removeHandler(self)
        self._log.setLevel(self._level)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep *record*."""
        self.last = record.getMessage()


class _Waits(Said):
    """Keeps the last message until it is `due`, and from then on tells each on stderr."""

    _is_due = False

    def due(self) -> None:
        """Tell what was kept, and all that comes."""
        self.acquire()
        self._is_due = True
        self._tell()
        self.release()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep or tell *record*."""
        super().emit(record)
        if self._is_due:
            self._tell()

    def _tell(self) -> None:
        if self.last:
            print(self.last, file=sys.stderr, flush=True)


@contextmanager
def telling_of_waits() -> Iterator[None]:
    """Tell on stderr, from a moment on, what the client waits for within."""
    with _Waits() as waits:
        timer = threading.Timer(SILENT_S, waits.due)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
