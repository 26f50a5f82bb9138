"""Tables as rows: a column of URLs, texts, paths or pictures, and a column of ids if there is one."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from embedding.client.bulk.arrow import arrow, parquet
from embedding.client.bulk.errors import BulkError
from embedding.client.bulk.rows import row_of_bytes, row_of_text


if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from embedding.client.bulk.rows import As, Row

CELL_CHARS: Final = 10_000_000  # what the csv module reads of one cell; the worker's own limits are lower
BATCH_ROWS: Final = 256


def csv_rows(path: str, how: As, column: str | None, id_column: str | None) -> Iterator[Row]:
    """Yield the rows of a CSV file, or of a TSV file, whose first line names the columns."""
    csv.field_size_limit(CELL_CHARS)
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter="\t" if path.lower().endswith(".tsv") else ",")
        try:
            names = next(reader, [])
            value_at = names.index(_chosen(path, names, column))
            id_at = None if id_column is None else names.index(_named(path, names, id_column, "--id-column"))
            for cells in reader:
                if cells:
                    yield row_of_text(_cell(cells, value_at), how, name=_name(cells, id_at))
        except csv.Error as fault:
            raise BulkError(f"SOURCE {path}, line {reader.line_num}: {fault}") from None


def _cell(cells: Sequence[str], index: int) -> str:
    return cells[index].strip() if index < len(cells) else ""


def _name(cells: Sequence[str], index: int | None) -> str | None:
    return None if index is None else _cell(cells, index)


def parquet_rows(path: str, how: As, column: str | None, id_column: str | None) -> Iterator[Row]:
    """Yield the rows of a Parquet file; a column of binary values holds pictures."""
    pa, pq = arrow(), parquet()
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            chosen = _chosen(path, names, column)
            kind = file.schema_arrow.field(chosen).type
            if not _is_text(pa, kind) and not _is_binary(pa, kind):
                raise BulkError(f"--column {chosen} of {path} is {kind}; texts, URLs or pictures are needed")
            wanted = [chosen]
            if id_column is not None:
                wanted.append(_named(path, names, id_column, "--id-column"))
            batches = file.iter_batches(BATCH_ROWS, columns=wanted, use_threads=False)
            yield from _parquet_rows(path, how, batches, wanted, is_binary=_is_binary(pa, kind))
    except pa.ArrowException as fault:
        raise BulkError(f"SOURCE {path} is no whole Parquet file: {str(fault).splitlines()[0]}") from None


def _parquet_rows(
    path: str, how: As, batches: Iterator[Any], wanted: Sequence[str], *, is_binary: bool
) -> Iterator[Row]:
    number = 0
    for batch in batches:
        values = batch.column(wanted[0]).to_pylist()
        names = batch.column(wanted[-1]).to_pylist()
        for value, name in zip(values, names, strict=True):
            row_id = None if len(wanted) == 1 else str(name)
            if is_binary:
                yield row_of_bytes(value, row_id or f"{path}#{number}")
            else:
                yield row_of_text((value or "").strip(), how, name=row_id)
            number += 1


def _is_text(pa: Any, kind: Any) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_binary(pa: Any, kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _chosen(path: str, names: Sequence[str], column: str | None) -> str:
    """Return the column to embed: the one named, or the only one there is."""
    if column is not None:
        return _named(path, names, column, "--column")
    if len(names) == 1:
        return names[0]
    raise BulkError(f"--column is needed for {path}, which has {_told(names)}")


def _named(path: str, names: Sequence[str], column: str, option: str) -> str:
    if column in names:
        return column
    raise BulkError(f"{option} {column}: {path} has no such column; it has {_told(names)}")


def _told(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "none: the file is empty"


def parquet_count(path: str) -> int:
    """Return how many rows a Parquet file has. Raises BulkError if it is none."""
    try:
        return int(parquet().read_metadata(path).num_rows)
    except (arrow().ArrowException, OSError) as fault:
        raise BulkError(f"SOURCE {path} is no whole Parquet file: {str(fault).splitlines()[0]}") from None
