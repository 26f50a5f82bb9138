"""The walk over a source: which rows are still wanted, in jobs, and whether the source is still the same.

Rows are numbered from 0 and cut into parts of a fixed size. Every walk goes over all rows, and makes of each
part a digest of all that tells one row from another; where a part is there already, the two must agree. So a
source that changed between two runs is found out, and no vector stands beside another row's id. The walk
reads names, lines and headers, no pictures: those of rows that are wanted are read later.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from embedding.client.bulk.errors import BulkError
from embedding.client.bulk.rows import as_bytes
from embedding.client.bulk.text import storable


if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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

    def digest(self, part: int) -> str | None:
        """Return the digest of the rows of *part*, None where it is not written."""

    def count(self) -> int:
        """Return one more than the number of the last part written."""


@dataclass(slots=True)
class Taken:
    """What the walk brought: a job's rows, parts passed since with their digests, rows done before."""

    rows: Numbered = field(default_factory=list)
    passed: list[tuple[int, str]] = field(default_factory=list)
    wire_bytes: int = 0
    skipped: int = 0


@dataclass(slots=True)
class Walk:
    """Yields what is wanted of *rows* in jobs of at most *max_items* and *max_bytes*.

    *only* are the numbers of the rows to retry with their ids, ascending; None wants every row. Once it has
    ended, `count` is the number of rows and `digest` that of the whole source.
    """

    rows: Iterable[Row]
    done: Done
    part_rows: int
    max_items: int
    max_bytes: int
    only: Iterator[tuple[int, str]] | None = None
    count: int = 0
    digest: str = ""

    def __iter__(self) -> Iterator[Taken]:
        """Walk. Raises BulkError if the source has changed, cannot be read, or is empty."""
        taken = Taken()
        whole, of_part = hashlib.sha256(), hashlib.sha256()
        written: str | None = None
        picker = _Picker(self.only)
        for number, row in enumerate(self.rows):
            part, place = divmod(number, self.part_rows)
            if place == 0:
                written, of_part = self.done.digest(part), hashlib.sha256()
            _digest(of_part, row)
            self.count = number + 1
            if written is None and picker.wants(number, row):
                if self._is_full(taken, row):
                    yield taken
                    taken = Taken()
                taken.rows.append((number, row))
                taken.wire_bytes += row.wire_bytes()
            elif written is not None:
                taken.skipped += 1
            if place == self.part_rows - 1:
                whole.update(self._passed(taken, part, of_part.hexdigest(), written))
        if self.count % self.part_rows:
            whole.update(self._passed(taken, self.count // self.part_rows, of_part.hexdigest(), written))
        self._check_end()
        self.digest = whole.hexdigest()
        yield taken

    def _is_full(self, taken: Taken, row: Row) -> bool:
        fits = taken.wire_bytes + row.wire_bytes() <= self.max_bytes
        return len(taken.rows) == self.max_items or (bool(taken.rows) and not fits)

    def _passed(self, taken: Taken, part: int, digest: str, written: str | None) -> bytes:
        if written is None:
            taken.passed.append((part, digest))
        elif written != digest:
            first = part * self.part_rows
            raise BulkError(CHANGED.format(where=f"among rows {first} to {first + self.part_rows - 1}"))
        return digest.encode()

    def _check_end(self) -> None:
        if self.count == 0:
            raise BulkError("SOURCE: nothing in it to embed")
        if self.done.count() > -(-self.count // self.part_rows):
            raise BulkError(CHANGED.format(where=f"it has {self.count} rows, fewer than before"))


@dataclass(slots=True)
class _Picker:
    """Wants every row, or those of *only* alone."""

    only: Iterator[tuple[int, str]] | None
    next: tuple[int, str] | None = None

    def __post_init__(self) -> None:
        self.next = next(self.only, None) if self.only is not None else None

    def wants(self, number: int, row: Row) -> bool:
        if self.only is None:
            return True
        while self.next is not None and self.next[0] < number:
            self.next = next(self.only, None)
        if self.next is None or self.next[0] != number:
            return False
        if self.next[1] != storable(row.id):
            raise BulkError(CHANGED.format(where=f"row {number} was {self.next[1]}"))
        return True


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


def _digest(into: hashlib._Hash, row: Row) -> None:
    value = row.value if isinstance(row.value, bytes) else as_bytes(row.value)
    for piece in (as_bytes(row.id), row.kind.encode(), value, row.stamp.encode()):
        into.update(len(piece).to_bytes(8, "little"))
        into.update(piece)
