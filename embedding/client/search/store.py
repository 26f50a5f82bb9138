"""Files of vectors, opened for search: what they say of themselves, vectors in blocks, ids by row.

Parquet: a column `id` (string) and a column `vector` (fixed-size list of float32 or float16), with the keys
`fingerprint` and `model` in the schema's metadata. NumPy: `NAME.npy` (n, dim), and beside it `NAME.ids.txt`
with an id a line; `NAME.json`, where there is one, holds the two keys.

Nothing here holds a whole column: a file of any size is read in blocks of 32 MiB, by parts that several
threads may read at once.
"""

from __future__ import annotations

import itertools
import json
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from embedding.client.errors import ClientError


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt
    import pyarrow as pa
    import pyarrow.parquet as pq

    Block = tuple[int, npt.NDArray[np.float32]]  # the number of its first row, and its rows (n, dim)
    Part = Callable[[], Iterator[Block]]

BLOCK_BYTES: Final = 32 << 20
READ_BYTES: Final = 1 << 20  # of a column at a time; pyarrow reads and keeps the whole of a row group else
NUMPY_FLOATS: Final = ("float16", "float32")
ARROW_FLOATS: Final = ("halffloat", "float")


class Unsearchable(ClientError):
    """A file of vectors, a query or an option that no search can be made with."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What made the vectors of a file, as the file says: None where it does not."""

    fingerprint: str | None
    model: str | None


class Store(Protocol):
    """Vectors in a file: *rows* of *dim* numbers."""

    origin: Origin
    rows: int
    dim: int

    def parts(self) -> Sequence[Part]:
        """Return what reads the file part by part, each in blocks (n, dim) float32; NaN where there is none.

        Parts may be read by several threads at once.
        """

    def ids(self, rows: Sequence[int]) -> dict[int, str]:
        """Return the ids of *rows*."""


def open_store(path: Path) -> Store:
    """Return the vectors in *path*, a .parquet or .npy file. Raises Unsearchable if it is neither."""
    if not path.is_file():
        raise Unsearchable(f"{path} is not a file; `python -m embedding embed` makes one")
    return NumpyStore(path) if path.suffix == ".npy" else ParquetStore(path)


class ParquetStore:
    """A Parquet file; its parts are its row groups."""

    def __init__(self, path: Path) -> None:
        """Read the schema. Raises Unsearchable if this is no such file."""
        self._path = path
        self._opened = _stamp(path)
        self._file = self._open()
        self._check_schema()
        schema, metadata = self._file.schema_arrow, self._file.metadata
        self.dim = schema.field("vector").type.list_size
        self.rows = metadata.num_rows
        said = {
            key.decode(): value.decode(errors="replace")
            for key, value in (schema.metadata or {}).items()
            if key in (b"fingerprint", b"model")
        }
        self.origin = Origin(said.get("fingerprint") or None, said.get("model") or None)
        sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        self._first_rows = [0, *itertools.accumulate(sizes)]

    def parts(self) -> Sequence[Part]:
        """Return what reads each row group."""
        return [partial(self._blocks, number) for number in range(len(self._first_rows) - 1)]

    def ids(self, rows: Sequence[int]) -> dict[int, str]:
        """Return the ids of *rows*, reading that column of their row groups alone."""
        found: dict[int, str] = {}
        groups = np.searchsorted(self._first_rows, rows, side="right") - 1
        for group in sorted(set(groups.tolist())):
            mine = [row for row, of in zip(rows, groups, strict=True) if of == group]
            with _told_of(self._path):
                column = self._file.read_row_group(group, columns=["id"]).column("id")
                found |= {row: column[row - self._first_rows[group]].as_py() or "" for row in mine}
        return found

    def _blocks(self, group: int) -> Iterator[Block]:
        row = self._first_rows[group]
        with _told_of(self._path):
            batches = self._open(self._file.metadata).iter_batches(
                batch_size=_block_rows(self.dim), row_groups=[group], columns=["vector"], use_threads=False
            )
            for batch in batches:
                yield row, _floats(batch.column(0))
                row += batch.num_rows

    def _open(self, metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
        try:
            import pyarrow.parquet as pq  # noqa: PLC0415  0.2 s, for Parquet alone
        except ImportError:
            raise Unsearchable("pyarrow is not installed: pip install '.[bulk]'") from None
        with _told_of(self._path):
            file = pq.ParquetFile(self._path, metadata=metadata, pre_buffer=False, buffer_size=READ_BYTES)
            if _stamp(self._path) != self._opened:
                raise _changed(self._path)
        return file

    def _check_schema(self) -> None:
        schema = self._file.schema_arrow
        for name in ("id", "vector"):
            if schema.names.count(name) != 1:
                told = ", ".join(schema.names) or "none"
                raise Unsearchable(f"{self._path} must have one column {name}; its columns: {told}")
        if str(schema.field("id").type) not in ("string", "large_string"):
            raise Unsearchable(f"{self._path}: column id must hold strings, not {schema.field('id').type}")
        kind = schema.field("vector").type
        if getattr(kind, "list_size", None) == 0:
            raise _empty(self._path)
        if not hasattr(kind, "list_size") or str(kind.value_type) not in ARROW_FLOATS or kind.list_size < 1:
            raise Unsearchable(
                f"{self._path}: column vector must be a fixed-size list of float32 or float16, not {kind}"
            )


class NumpyStore:
    """A .npy file with its ids in a text file beside it; its parts are runs of rows."""

    def __init__(self, path: Path) -> None:
        """Read the header. Raises Unsearchable if this is no such file, or its ids are missing."""
        self._ids_path = path.with_suffix(".ids.txt")
        self._array = _mapped(path)
        self.rows, self.dim = self._array.shape
        self.origin = _told_beside(path.with_suffix(".json"))
        if not self._ids_path.is_file():
            raise Unsearchable(f"{self._ids_path} is missing: the ids of {path.name}, one a line")
        self._opened = _stamp(self._ids_path)
        with self._ids_path.open("rb") as lines:
            count = sum(1 for _ in lines)
        if count != self.rows:
            raise Unsearchable(f"{path} has {self.rows} vectors, {self._ids_path.name} {count} ids")

    def parts(self) -> Sequence[Part]:
        """Return what reads each run of rows."""
        step = _block_rows(self.dim)

        def part(first: int) -> Iterator[Block]:
            yield first, self._array[first : first + step].astype(np.float32, copy=False)

        return [partial(part, first) for first in range(0, self.rows, step)]

    def ids(self, rows: Sequence[int]) -> dict[int, str]:
        """Return the ids of *rows*, reading the file of ids once. One that is not UTF-8 keeps its bytes."""
        wanted = set(rows)
        with self._ids_path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
            found = {row: line.rstrip("\n") for row, line in enumerate(lines) if row in wanted}
        if _stamp(self._ids_path) != self._opened:
            raise _changed(self._ids_path)
        return found


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    """Raise Unsearchable where the Parquet file *path* cannot be read."""
    import pyarrow as pa  # noqa: PLC0415

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError, IndexError) as fault:
        told = str(fault).partition("\n")[0]
        raise Unsearchable(f"{path} cannot be read as Parquet: {told}") from None


def _changed(path: Path) -> Unsearchable:
    return Unsearchable(f"{path} was changed while it was read: search again")


def _empty(path: Path) -> Unsearchable:
    return Unsearchable(f"{path} holds no vector: every row that it was made of has failed")


def _stamp(path: Path) -> tuple[int, int, int]:
    """Return what changes where another file takes the place of the one at *path*, or it is written to."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _block_rows(dim: int) -> int:
    return max(1, BLOCK_BYTES // (4 * dim))


def _floats(column: pa.FixedSizeListArray) -> npt.NDArray[np.float32]:
    """Return *column* as (n, dim) float32; a row of NaN where it is null."""
    dim, first = column.type.list_size, column.offset
    values = column.values.slice(first * dim, len(column) * dim)
    floats = values.to_numpy(zero_copy_only=False).astype(np.float32, copy=False).reshape(-1, dim)
    if column.null_count:
        floats = floats.copy()
        floats[column.is_null().to_numpy(zero_copy_only=False)] = np.nan
    return floats


def _mapped(path: Path) -> npt.NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as fault:
        raise Unsearchable(f"{path} cannot be read as an array: {fault}") from None
    if 0 in array.shape:
        raise _empty(path)
    if array.ndim != len("nd") or array.dtype.name not in NUMPY_FLOATS:
        raise Unsearchable(
            f"{path} must be (n, dim) of float32 or float16, not {array.shape} of {array.dtype.name}"
        )
    return array


def _told_beside(path: Path) -> Origin:
    if not path.is_file():
        return Origin(None, None)
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return Origin(said.get("fingerprint") or None, said.get("model") or None)
    except (OSError, ValueError, AttributeError):
        raise Unsearchable(f"{path} is not JSON with the keys fingerprint and model") from None
