"""The parts of a run on disk: each is there whole or not at all.

A part is written under another name, made durable, and renamed. It holds every row of its range that was
wanted: a vector, or a code and a message. What cannot be read as a part is as good as not there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from embedding.client.bulk.arrow import arrow, parquet
from embedding.client.bulk.digests import Digests
from embedding.client.bulk.errors import BulkError
from embedding.client.bulk.text import storable
from embedding.client.errors import ItemError


if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    Outcome = npt.NDArray[np.float32] | ItemError
    Vectors = npt.NDArray[np.float32] | npt.NDArray[np.float16]

NOW: Final = b"digest"
BEFORE: Final = b"digest_before"
NUMBER_DIGITS: Final = 6


@dataclass(frozen=True, slots=True)
class Failure:
    """A row without a vector, and why; *stamp* is the row's own, of when it failed."""

    row: int
    id: str
    code: str
    message: str
    stamp: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """What became of the rows of a part: those with vectors (N, D), by *rows* and *ids*, and the others."""

    rows: list[int]
    ids: list[str]
    vectors: Vectors
    failures: list[Failure]


@dataclass(slots=True)
class OpenPart:
    """A part whose rows are under way, by id and stamp. *digests* are known once the walk has passed it."""

    rows: dict[int, tuple[str, str]] = field(default_factory=dict)
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    digests: Digests | None = None

    def is_whole(self) -> bool:
        """Return whether every row that will come has its outcome."""
        return self.digests is not None and len(self.outcomes) == len(self.rows)

    def closed(self, dtype: str) -> Part:
        """Return it with its rows in order, vectors of *dtype*, and text that is Unicode."""
        rows, ids, failures, vectors = [], [], [], []
        for row, (row_id, stamp) in sorted(self.rows.items()):
            outcome = self.outcomes[row]
            if isinstance(outcome, ItemError):
                told = map(storable, (row_id, outcome.code, outcome.message, stamp))
                failures.append(Failure(row, *told))
            else:
                rows.append(row)
                ids.append(storable(row_id))
                vectors.append(outcome)
        matrix = np.stack(vectors) if vectors else np.empty((0, 0), np.float32)
        return Part(rows, ids, matrix.astype(dtype, copy=False), failures)


class Parts:
    """The parts in *folder*."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, part: int) -> Path:
        """Return where *part* is, or will be."""
        return self._folder / f"{part:0{NUMBER_DIGITS}}.parquet"

    def numbers(self) -> list[int]:
        """Return the numbers of all parts that are there, ascending."""
        return sorted(int(path.stem) for path in self._folder.glob("*.parquet") if path.stem.isdecimal())

    def count(self) -> int:
        """Return one more than the number of the last part."""
        return max(self.numbers(), default=-1) + 1

    def digests(self, part: int) -> Digests | None:
        """Return the digests of the rows of *part*; None if it is not there, or damaged: then it goes."""
        path = self.path(part)
        if not path.exists():
            return None
        try:
            metadata = parquet().read_schema(path).metadata
            return Digests(metadata[NOW].decode(), metadata[BEFORE].decode())
        except (arrow().ArrowException, OSError, KeyError, TypeError):
            self.drop(part)
            return None

    def write(self, number: int, part: Part, digests: Digests) -> None:
        """Write *part*, durably. Raises OSError."""
        path = self.path(number)
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            parquet().write_table(
                _table(part, digests),
                file,
                compression="NONE",
                use_dictionary=False,
                write_statistics=False,
            )
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(self._folder)

    def drop(self, number: int) -> None:
        """Make a part one that is not there."""
        self.path(number).unlink(missing_ok=True)

    def failures(self, number: int) -> list[Failure]:
        """Return the rows of a part that have no vector. Raises BulkError as `read` does."""
        table = self._table(number, ["row", "id", "code", "message", "stamp"])
        columns = [column.to_pylist() for column in table.columns]
        return [Failure(*row) for row in zip(*columns, strict=True) if row[2] is not None]

    def read(self, number: int) -> Part:
        """Return the rows of a part that have vectors. Raises BulkError for a damaged part, which goes."""
        table = self._table(number, ["row", "id", "vector", "code"])
        table = table.slice(0, table["code"].null_count)  # those without a vector stand at the end
        return Part(table["row"].to_pylist(), table["id"].to_pylist(), as_matrix(table["vector"]), [])

    def _table(self, number: int, columns: list[str]) -> Any:
        try:
            return parquet().read_table(self.path(number), columns=columns, use_threads=False)
        except (arrow().ArrowException, OSError) as fault:
            self.drop(number)
            told = f"part {number} of this run is damaged, and was dropped: run the same command to go on"
            raise BulkError(told) from fault


def _table(part: Part, digests: Digests) -> Any:
    pa = arrow()
    failed, good = part.failures, len(part.rows)
    vectors = part.vectors
    if failed or not good:
        dim = max(1, vectors.shape[1])  # lists of no numbers cannot be read again
        vectors = np.zeros((good + len(failed), dim), part.vectors.dtype)
        vectors[:good] = part.vectors if good else 0
    names = ["row", "id", "vector", "code", "message", "stamp"]
    columns = [
        pa.array([*part.rows, *(failure.row for failure in failed)], pa.int64()),
        pa.array([*part.ids, *(failure.id for failure in failed)], pa.string()),
        as_column(vectors),
        pa.array([*[None] * good, *(failure.code for failure in failed)], pa.string()),
        pa.array([*[None] * good, *(failure.message for failure in failed)], pa.string()),
        pa.array([*[None] * good, *(failure.stamp for failure in failed)], pa.string()),
    ]
    metadata = {NOW: digests.now, BEFORE: digests.before}
    return pa.table(columns, names).replace_schema_metadata(metadata)


def as_column(vectors: Vectors) -> Any:
    """Return *vectors* (N, D) as a column of fixed-size lists."""
    pa = arrow()
    dim = vectors.shape[1]
    if dim == 0:
        return pa.array([[]] * len(vectors), pa.list_(pa.from_numpy_dtype(vectors.dtype), 0))
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dim)


def as_matrix(column: Any) -> Vectors:
    """Return a column of fixed-size lists as vectors (N, D)."""
    dim = column.type.list_size
    if len(column) == 0 or dim == 0:
        return np.empty((len(column), dim), column.type.value_type.to_pandas_dtype())
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    matrix: Vectors = flat.reshape(-1, dim)
    return matrix


def sync_folder(folder: Path) -> None:
    """Make renames in *folder* durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
