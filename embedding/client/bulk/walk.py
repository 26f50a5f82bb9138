"""The walk over a source: which rows are still wanted, in jobs, and whether the source is still the same.

Rows are numbered from 0 and cut into parts of a fixed size. Every walk goes over all rows, and makes of each
part a digest of all that tells one row from another; where a part is there already, the two must agree. So a
source that changed between two runs is found out, and no vector stands beside another row's id. The walk
reads names, lines and headers, no pictures: those of rows that are wanted are read later.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from embedding.client.bulk.digests import Digests, RunningDigests
from embedding.client.bulk.errors import BulkError


if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from embedding.client.bulk.parts import Failure
    from embedding.client.bulk.rows import Row

    Numbered = list[tuple[int, Row]]

CHANGED: Final = (
    "the source has changed since this run began ({where}): --restart begins anew, another --out keeps both"
)

LAST_S: Final = (
    1.0  # that a read may take on after a cancellation; most end by themselves within milliseconds
)


class Done(Protocol):
    """What is known of parts that are written."""

    def digests(self, part: int) -> Digests | None:
        """Return the digests of the rows of *part*, None where it is not written."""

    def count(self) -> int:
        """Return one more than the number of the last part written."""


@dataclass(slots=True)
class Taken:
    """What the walk brought: a job's rows, parts passed since with their digests, rows done before."""

    rows: Numbered = field(default_factory=list)
    passed: list[tuple[int, Digests]] = field(default_factory=list)
    wire_bytes: int = 0
    skipped: int = 0


@dataclass(slots=True)
class Walk:
    """Yields what is wanted of *rows* in jobs of at most *max_items* and *max_bytes*.

    *only* are the rows to retry, ascending; None wants every row. Once it has ended, `count` is the number of
    rows, and `digests` are those of the whole source.
    """

    rows: Iterable[Row]
    done: Done
    part_rows: int
    max_items: int
    max_bytes: int
    only: Iterator[Failure] | None = None
    count: int = 0
    digests: Digests = field(default_factory=lambda: Digests("", ""))

    def __iter__(self) -> Iterator[Taken]:
        """Walk. Raises BulkError if the source has changed, cannot be read, or is empty."""
        taken, failures, digests = Taken(), _Failures(self.only), RunningDigests()
        part, written = 0, None
        for number, row in enumerate(self.rows):
            part, place = divmod(number, self.part_rows)
            if place == 0:
                written = self.done.digests(part)
            failure = failures.of(number)
            digests.add(row, failure)
            self.count = number + 1
            if written is not None:
                taken.skipped += 1
            elif self.only is None or failure is not None:
                if self._is_full(taken, row):
                    yield taken
                    taken = Taken()
                taken.rows.append((number, row))
                taken.wire_bytes += row.wire_bytes()
            if place == self.part_rows - 1:
                self._pass(taken, part, digests.end_part(written), written)
        if self.count % self.part_rows:
            self._pass(taken, part, digests.end_part(written), written)
        self._check_end()
        self.digests = digests.whole()
        yield taken

    def _is_full(self, taken: Taken, row: Row) -> bool:
        fits = taken.wire_bytes + row.wire_bytes() <= self.max_bytes
        return len(taken.rows) == self.max_items or (bool(taken.rows) and not fits)

    def _pass(self, taken: Taken, part: int, digests: Digests, written: Digests | None) -> None:
        if written is None:
            taken.passed.append((part, digests))
        elif written.before != digests.before:
            first = part * self.part_rows
            raise BulkError(CHANGED.format(where=f"among rows {first} to {first + self.part_rows - 1}"))

    def _check_end(self) -> None:
        if self.count == 0:
            raise BulkError("SOURCE: nothing in it to embed")
        if self.done.count() > -(-self.count // self.part_rows):
            raise BulkError(CHANGED.format(where=f"it has {self.count} rows, fewer than before"))


class _Failures:
    """Those of *failures* that belong to the rows that go by."""

    def __init__(self, failures: Iterator[Failure] | None) -> None:
        self._failures = failures or iter(())
        self._next = next(self._failures, None)

    def of(self, number: int) -> Failure | None:
        """Return how row *number* failed; None if it has not. Numbers ascend."""
        failure = self._next
        if failure is None or failure.row != number:
            return None
        self._next = next(self._failures, None)
        return failure


async def next_of(walk: Iterator[Taken]) -> Taken | None:
    """Return what *walk* yields next, None at its end, read in a thread that does not hold up the process.

    A read of stdin may never return. Raises what *walk* raises.
    """
    future: Future[Taken | None] = Future()
    future.set_running_or_notify_cancel()  # a cancellation would leave no place for what is read

    def read() -> None:
        try:
            future.set_result(next(walk, None))
        except BaseException as fault:  # noqa: BLE001  it is raised where the result is waited for
            future.set_exception(fault)

    thread = threading.Thread(target=read, name="walk", daemon=True)
    thread.start()
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        thread.join(LAST_S)
        raise
