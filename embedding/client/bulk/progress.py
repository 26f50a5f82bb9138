"""How a run goes on, on stderr: a bar on a terminal, else a line now and then.

While no row comes, it also tells what the client last said of its wait: an attempt that failed, say, or how a
job of the queue stands.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from embedding.client.errors import TOLD_CHARS, ClientError, ItemError
from embedding.client.waiting import Said


if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from embedding.client.bulk.parts import Outcome
    from embedding.client.bulk.window import Window

REFRESH_S: Final = 0.5
LINE_S: Final = 5.0
STILL_S: Final = 5.0  # without a row, after which what is waited for is told


class Progress:
    """Counts rows; *count_rows* says how many there are, in a thread of its own, since that takes a walk."""

    def __init__(self, window: Window, count_rows: Callable[[], int] | None) -> None:
        self.done = 0
        self.failed = 0
        self.skipped = 0
        self._total: int | None = None
        self._window = window
        self._count_rows = count_rows
        self._started_s = self._moved_s = time.monotonic()
        self._said = Said()
        self._bar = _bar() if sys.stderr is not None and sys.stderr.isatty() else None

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Take note of rows that are done."""
        self.done += len(outcomes)
        self._moved_s, self._said.last = time.monotonic(), ""
        self.failed += sum(isinstance(outcome, ItemError) for outcome in outcomes)

    def skip(self, rows: int) -> None:
        """Take note of rows that were done before."""
        self.skipped += rows

    @property
    def took_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._started_s

    async def tell(self) -> None:
        """Tell how it goes until cancelled."""
        if self._count_rows is not None:
            threading.Thread(target=self._count, daemon=True).start()
        try:
            with self._said:
                await self._tell()
        except OSError:
            return  # whoever read it has gone
        finally:
            if self._bar is not None:
                self._show()
                self._bar.close()

    async def _tell(self) -> None:
        while sys.stderr is not None:
            await asyncio.sleep(REFRESH_S if self._bar is not None else LINE_S)
            self._show()

    def _count(self) -> None:
        try:
            self._total = self._count_rows() if self._count_rows else None
        except (ClientError, OSError):
            return  # the walk itself meets the same, and tells it

    def _show(self) -> None:
        if self._bar is None:
            print(self._line(), file=sys.stderr, flush=True)
            return
        self._bar.total = self._total
        self._bar.initial = self.skipped
        self._bar.n = self.skipped + self.done
        counts = f"failed={self.failed}, jobs={self._window.jobs}"
        self._bar.set_postfix_str(f"{counts}{self._waits()}", refresh=True)

    def _line(self) -> str:
        total = "" if self._total is None else f" of {self._total:,}"
        rate = self.done / self.took_s
        rest = "" if self._total is None or not rate else f", {_clock(self._left(rate))} left"
        jobs = f"jobs in flight: {self._window.jobs}"
        done = f"{self.skipped + self.done:,}{total} rows, {rate:.1f}/s{rest}"
        return f"{done}; {self.failed} failed; {jobs}{self._waits()}"

    def _waits(self) -> str:
        """Return what is waited for, if no row has come for some time and the client has said it."""
        is_still = time.monotonic() - self._moved_s >= STILL_S
        said = " ".join(self._said.last.split())[:TOLD_CHARS]
        return f"; {said}" if is_still and said else ""

    def _left(self, rate: float) -> float:
        return max(0, (self._total or 0) - self.skipped - self.done) / rate


def _bar() -> Any:
    """Return tqdm's bar, None where it is not installed."""
    try:
        tqdm = importlib.import_module("tqdm").tqdm
    except ImportError:
        return None
    return tqdm(unit="row", dynamic_ncols=True, smoothing=0.05)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
