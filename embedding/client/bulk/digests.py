"""What tells that a source is still the same: the digest of each part's rows, and that of those digests.

A file is told by its size and time. In a retry those of rows that failed may be others, since a picture was
put right; the stamps that they failed with tell the source as it was before.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from embedding.client.bulk.rows import as_bytes


if TYPE_CHECKING:
    from embedding.client.bulk.parts import Failure
    from embedding.client.bulk.rows import Row


@dataclass(frozen=True, slots=True)
class Digests:
    """Of rows as they are *now*, and as they were *before*, when those to retry failed; else the same."""

    now: str
    before: str


class RunningDigests:
    """The digests of a source whose rows go by."""

    def __init__(self) -> None:
        self._now, self._before = _Running(), _Running()

    def add(self, row: Row, failure: Failure | None) -> None:
        """Take *row* into the part that goes on; *failure* is how it failed, if it is to be tried again."""
        told = _told(row)
        self._now.part.update(told)
        self._before.part.update(told if failure is None else _told(replace(row, stamp=failure.stamp)))

    def end_part(self, written: Digests | None) -> Digests:
        """End the part, and return its digests; the whole's `now` has it as it was when *written*, if so."""
        part = Digests(self._now.end_part(), self._before.end_part())
        self._now.whole.update((written or part).now.encode())
        self._before.whole.update(part.before.encode())
        return part

    def whole(self) -> Digests:
        """Return the digests of all parts that have ended."""
        return Digests(self._now.whole.hexdigest(), self._before.whole.hexdigest())


class _Running:
    def __init__(self) -> None:
        self.whole, self.part = hashlib.sha256(), hashlib.sha256()

    def end_part(self) -> str:
        digest, self.part = self.part.hexdigest(), hashlib.sha256()
        return digest


def _told(row: Row) -> bytes:
    """Return all that tells *row* from another: each piece, after its length."""
    value = row.value if isinstance(row.value, bytes) else as_bytes(row.value)
    pieces = (as_bytes(row.id), row.kind.encode(), value, row.stamp.encode())
    return b"".join([b"%d:%b" % (len(piece), piece) for piece in pieces])
