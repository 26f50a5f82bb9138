"""The file of vectors: Parquet, or .npy with ids beside it; what it says of itself, and how it is read again.

Parquet: `id`, `vector` (a fixed-size list); fingerprint, model and how it was made in the schema's metadata.
NAME.npy: a matrix (N, D); its ids in NAME.ids.txt, one a line, and the rest in NAME.json.
"""

from __future__ import annotations

import json
import os
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from embedding.client.bulk.arrow import arrow, parquet
from embedding.client.bulk.errors import BulkError
from embedding.client.bulk.parts import as_column, as_matrix
from embedding.client.bulk.text import storable


if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from embedding.client.bulk.parts import Vectors

    Chunk = tuple[list[str], Vectors]

ABOUT: Final = "embedding"  # the key of the metadata that says how the vectors were made
SAID: Final = frozenset(
    {"identity", "source_digest", "made_by", "fingerprint", "model", "dim", "dtype", "rows", "failed"}
    | {"failures_digest"}
)
READ_ROWS: Final = 4096


class Format(Protocol):
    """A kind of output."""

    def names(self, out: Path) -> list[str]:
        """Return the names of the files that *out* consists of."""

    def about(self, out: Path) -> dict[str, Any] | None:
        """Return what *out* says of how it was made; None if it does not, or is not there."""

    def write(self, out: Path, chunks: Iterator[Chunk], count: int, about: dict[str, Any]) -> None:
        """Write *count* vectors into *out*, durably. *about* has dim and dtype. Raises OSError."""

    def read(self, out: Path) -> Iterator[Chunk]:
        """Yield ids and vectors of *out*, in its order; any fault of reading if it is damaged."""


def format_of(out: Path) -> Format:
    """Return the format that the name of *out* asks for. Raises BulkError if there is none."""
    formats: dict[str, Format] = {".parquet": ParquetFormat(), ".npy": NpyFormat()}
    if out.suffix not in formats:
        raise BulkError(f"--out {out} must end in .parquet or .npy")
    return formats[out.suffix]


class ParquetFormat:
    """One Parquet file."""

    def names(self, out: Path) -> list[str]:
        """Return its name."""
        return [out.name]

    def about(self, out: Path) -> dict[str, Any] | None:
        """Return what stands in the schema's metadata."""
        try:
            metadata = parquet().read_schema(out).metadata or {}
            return _about(metadata[ABOUT.encode()])
        except (OSError, KeyError, arrow().ArrowException):
            return None

    def write(self, out: Path, chunks: Iterator[Chunk], count: int, about: dict[str, Any]) -> None:
        """Write a row group for each chunk; vectors do not shrink, so only ids are compressed."""
        del count
        pa = arrow()
        vector = pa.list_(pa.from_numpy_dtype(np.dtype(about["dtype"])), about["dim"])
        fields = [pa.field("id", pa.string(), nullable=False), pa.field("vector", vector, nullable=False)]
        metadata = {
            "fingerprint": storable(about["fingerprint"] or ""),
            "model": storable(about["model"] or ""),
            ABOUT: json.dumps(about),
        }
        schema = pa.schema(fields, metadata)
        compression = {"id": "zstd", "vector.list.element": "NONE"}
        with out.open("wb") as file:
            with parquet().ParquetWriter(
                file, schema, compression=compression, use_dictionary=False, write_statistics=["id"]
            ) as writer:
                for ids, vectors in chunks:
                    columns = [pa.array(ids, pa.string()), as_column(vectors)]
                    writer.write_table(pa.table(columns, schema=schema))
            file.flush()
            os.fsync(file.fileno())

    def read(self, out: Path) -> Iterator[Chunk]:
        """Yield a chunk for some rows at a time."""
        pa = arrow()
        with parquet().ParquetFile(out) as file:
            for batch in file.iter_batches(READ_ROWS, use_threads=False):
                table = pa.Table.from_batches([batch])
                yield table["id"].to_pylist(), as_matrix(table["vector"])


class NpyFormat:
    """A matrix, a list of ids, and a file that says the rest."""

    def names(self, out: Path) -> list[str]:
        """Return the names of the three."""
        return [out.name, out.with_suffix(".ids.txt").name, out.with_suffix(".json").name]

    def about(self, out: Path) -> dict[str, Any] | None:
        """Return what stands in NAME.json."""
        try:
            return _about(out.with_suffix(".json").read_bytes())
        except OSError:
            return None

    def write(self, out: Path, chunks: Iterator[Chunk], count: int, about: dict[str, Any]) -> None:
        """Write all three; a line break within an id becomes a space."""
        header = {
            "descr": np.dtype(about["dtype"]).newbyteorder("<").str,
            "fortran_order": False,
            "shape": (count, about["dim"]),
        }
        with (
            out.open("wb") as matrix,
            out.with_suffix(".ids.txt").open("w", encoding="utf-8") as names,
            out.with_suffix(".json").open("w", encoding="utf-8") as rest,
        ):
            np.lib.format.write_array_header_1_0(matrix, header)
            for ids, vectors in chunks:
                matrix.write(np.ascontiguousarray(vectors).data)
                names.writelines(f"{' '.join(row_id.splitlines())}\n" for row_id in ids)
            json.dump(about, rest, indent=1)
            for file in (matrix, names, rest):
                file.flush()
                os.fsync(file.fileno())

    def read(self, out: Path) -> Iterator[Chunk]:
        """Yield a chunk for some rows at a time."""
        vectors: Any = np.load(out, mmap_mode="r")
        with out.with_suffix(".ids.txt").open(encoding="utf-8") as names:
            for first in range(0, len(vectors), READ_ROWS):
                chunk = np.array(vectors[first : first + READ_ROWS])
                yield [line.removesuffix("\n") for line in islice(names, len(chunk))], chunk
            if names.readline():
                raise ValueError("more ids than vectors")


def _about(text: bytes) -> dict[str, Any] | None:
    """Return what an output says of itself; None if *text* is something else."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) and said.keys() >= SAID else None


def failures_name(out: Path) -> str:
    """Return the name of the file of failed items beside *out*."""
    return f"{out.name}.failed.csv"
