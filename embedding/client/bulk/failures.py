"""The file of failed items, in the order of the source: to read, and to retry.

`stamp` tells a file as it was when it failed, by size and time, so that one put right since is still its row.

An output counts its failures and keeps a digest of their rows, so that a list that was edited cannot put
vectors into wrong places.
"""

from __future__ import annotations

import csv
import hashlib
import os
import sys
from dataclasses import astuple
from typing import TYPE_CHECKING, Final, Self

from embedding.client.bulk.errors import BulkError
from embedding.client.bulk.parts import Failure


if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

HEADER: Final = ["row", "id", "code", "message", "stamp"]


def read_failures(path: Path) -> Iterator[Failure]:
    """Yield the failures that *path* lists. Raises BulkError if it is not such a list."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            if next(reader, None) != HEADER:
                raise BulkError(f"{path} is no list of failed items: its columns are {', '.join(HEADER)}")
            while (cells := _next(reader)) is not None:
                row, row_id, code, message, stamp = cells
                yield Failure(int(row), row_id, code, message, stamp)
    except FileNotFoundError:
        told = f"{path} is not there, which lists what failed: put it back, or --restart makes all anew"
        raise BulkError(told) from None
    except (OSError, ValueError, csv.Error) as fault:
        raise BulkError(f"{path} cannot be read as a list of failed items: {fault}") from None


def _next(reader: Iterator[list[str]]) -> list[str] | None:
    """Return the next row, however long its cells are; whoever reads a table meanwhile sets the limit too."""
    csv.field_size_limit(sys.maxsize)
    return next(reader, None)


class FailureWriter:
    """Writes failures one by one into *path*; a context, after which none means no file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("w", encoding="utf-8", newline="")
        self._csv = csv.writer(self._file)
        self._csv.writerow(HEADER)
        self._digest = hashlib.sha256()
        self.count = 0

    def write(self, failure: Failure) -> None:
        """Add *failure*."""
        self._csv.writerow(astuple(failure))
        self._digest.update(failure.row.to_bytes(8, "little"))
        self.count += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Make it durable; of no failures there is no file."""
        with self._file as file:
            file.flush()
            os.fsync(file.fileno())
        if self.count == 0:
            self._path.unlink()

    def digest(self) -> str:
        """Return the digest of the rows."""
        return self._digest.hexdigest()


def check_failures(path: Path, *, count: int, digest: str) -> None:
    """Raise BulkError unless *path* lists just the rows that an output was written with."""
    rows = hashlib.sha256()
    found = 0
    for failure in read_failures(path):
        rows.update(failure.row.to_bytes(8, "little"))
        found += 1
    if (found, rows.hexdigest()) != (count, digest):
        raise BulkError(f"{path} was changed since the output was written: --restart makes both anew")
