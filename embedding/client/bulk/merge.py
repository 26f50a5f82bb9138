"""From parts to the output: all of them in order, one at a time; of a retry, put into what was there before.

Rows of failed items are absent from the output, so the n-th vector that it holds belongs to the n-th row that
has not failed. That is how a retry knows the rows of an earlier output, and puts each new vector where the
source has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from embedding.client.bulk.arrow import arrow
from embedding.client.bulk.errors import BulkError, writing
from embedding.client.bulk.failures import FailureWriter, read_failures
from embedding.client.bulk.formats import failures_name


if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from embedding.client.bulk.folder import RunFolder
    from embedding.client.bulk.formats import Chunk, Format
    from embedding.client.bulk.parts import Part, Parts


@dataclass(frozen=True, slots=True)
class Made:
    """What a run has made, beside its parts: rows in all, and what the output says of itself."""

    rows: int
    part_rows: int
    about: dict[str, Any]


def publish(folder: RunFolder, formats: Format, made: Made, *, is_retry: bool) -> None:
    """Make the output of the parts of *folder*, put it in its place, drop the parts.

    Raises BulkError if it cannot be written or a part is damaged.
    """
    out = folder.out
    with writing(out):
        final = folder.final()
        with FailureWriter(final / failures_name(out)) as failures:
            for number in folder.parts.numbers():
                for failure in folder.parts.failures(number):
                    failures.write(failure)
        about = made.about | {
            "rows": made.rows,
            "failed": failures.count,
            "failures_digest": failures.digest(),
        }
        chunks = _patched(folder, formats, made) if is_retry else _plain(folder.parts)
        formats.write(final / out.name, chunks, made.rows - failures.count, about)
        folder.publish(removing=[] if failures.count else [failures_name(out)])


def _plain(parts: Parts) -> Iterator[Chunk]:
    for number in parts.numbers():
        part = parts.read(number)
        if part.ids:
            yield part.ids, part.vectors


def _patched(folder: RunFolder, formats: Format, made: Made) -> Iterator[Chunk]:
    """Yield the rows of the earlier output and of the parts, merged, one part's range at a time."""
    earlier = _Earlier(folder.out, formats.read(folder.out))
    failures = read_failures(folder.out.with_name(failures_name(folder.out)))
    by_part = groupby(failures, key=lambda failure: failure.row // made.part_rows)
    failed_part, failed = next(by_part, (None, iter(())))
    retried = set(folder.parts.numbers())
    for part in range(-(-made.rows // made.part_rows)):
        first, end = part * made.part_rows, min((part + 1) * made.part_rows, made.rows)
        without: set[int] = set()
        if failed_part == part:
            without = {failure.row for failure in failed}
            failed_part, failed = next(by_part, (None, iter(())))
        rows = [row for row in range(first, end) if row not in without]
        chunk = earlier.take(len(rows))
        if part in retried:
            chunk = _merged(rows, chunk, folder.parts.read(part))
        if chunk[0]:
            yield chunk
    earlier.must_be_over()


def _merged(rows: list[int], earlier: Chunk, patch: Part) -> Chunk:
    ids, vectors = earlier
    order = np.argsort([*rows, *patch.rows])
    all_ids = [*ids, *patch.ids]
    filled = [matrix for matrix in (vectors, patch.vectors) if len(matrix)]
    if not filled:
        return [], vectors
    merged: Any = np.concatenate(filled)[order]
    return [all_ids[index] for index in order], merged


class _Earlier:
    """The rows of *out*, as many at a time as are asked for. Raises BulkError if they are too few or many."""

    def __init__(self, out: Path, chunks: Iterator[Chunk]) -> None:
        self._out, self._chunks = out, chunks
        self._chunk: Chunk = ([], np.empty((0, 0), np.float32))
        self._at = 0

    def take(self, count: int) -> Chunk:
        """Return the next *count* rows."""
        ids: list[str] = []
        taken = [self._chunk[1][:0]]
        while len(ids) < count:
            if self._at == len(self._chunk[0]):
                self._chunk, self._at = self._next(), 0
            end = min(len(self._chunk[0]), self._at + count - len(ids))
            ids += self._chunk[0][self._at : end]
            taken.append(self._chunk[1][self._at : end])
            self._at = end
        filled: list[Any] = [vectors for vectors in taken if len(vectors)]
        return ids, np.concatenate(filled) if filled else taken[0]

    def must_be_over(self) -> None:
        """Raise BulkError if there are more rows."""
        while self._at == len(self._chunk[0]):
            chunk = self._read()
            if chunk is None:
                return
            self._chunk, self._at = chunk, 0
        raise self._changed()

    def _next(self) -> Chunk:
        chunk = self._read()
        if chunk is None:
            raise self._changed()
        return chunk

    def _read(self) -> Chunk | None:
        try:
            chunk = next(self._chunks, None)
        except (OSError, EOFError, ValueError, arrow().ArrowException):
            raise self._changed() from None
        if chunk is not None and len(chunk[0]) != len(chunk[1]):
            raise self._changed()
        return chunk

    def _changed(self) -> BulkError:
        return BulkError(f"{self._out} has not the rows that it was made with: --restart makes it anew")
