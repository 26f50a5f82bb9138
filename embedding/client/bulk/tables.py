"""Tables as rows: a column of URLs, texts, paths or pictures, and a column of ids if there is one."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from embedding.client.bulk.arrow import arrow, parquet
from embedding.client.bulk.errors import BulkError
from embedding.client.bulk.rows import MAX_TEXT_CHARS, row_of_bytes, row_of_text


if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self, TextIO

    from embedding.client.bulk.rows import As, Row

ROW_LINES: Final = 1000  # that a row of a CSV file may take; a stray quote takes in all that follow
ALIKE_LINES: Final = 32  # of a cell, after which it is no chance that each has as many cells as a row
STRAY: Final = "a quote that opens a cell is perhaps stray: within quotes it is written twice"
LINE_ENDS: Final = re.compile(r"\r\n|\r|\n")
BATCH_ROWS: Final = 256
BATCH_PICTURES: Final = 16
READ_BYTES: Final = 65_536  # of a column at a time; pyarrow reads and keeps the whole of a row group else
TEXTS: Final = frozenset({"string", "large_string", "string_view"})
BINARIES: Final = frozenset({"binary", "large_binary", "binary_view"})


def csv_rows(path: str, how: As, column: str | None, id_column: str | None) -> Iterator[Row]:
    """Yield the rows of a CSV file, or of a TSV file, whose first line names the columns.

    Raises BulkError where quotes do not pair, or a row has more cells than the header.
    """
    csv.field_size_limit(MAX_TEXT_CHARS)
    comma = "\t" if path.lower().endswith(".tsv") else ","
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        lines = _Lines(path, file)
        reader = csv.reader(lines, delimiter=comma, strict=True)
        try:
            names = next(reader, [])
            value_at = names.index(_chosen(path, names, column))
            id_at = None if id_column is None else names.index(_named(path, names, id_column, "--id-column"))
            lines.pass_row()
            for cells in reader:
                if len(cells) != len(names) or lines.of_row > ALIKE_LINES:
                    _check_cells(lines, cells, names, comma)
                lines.pass_row()
                if cells:
                    yield row_of_text(_cell(cells, value_at), how, name=_name(cells, id_at))
        except csv.Error as fault:
            told = f"the row that begins there cannot be read in line {lines.number} ({fault}); {STRAY}"
            raise lines.fault(told) from None


class _Lines:
    """The lines of the table *file*: those of a row are counted, so that a stray quote is found out early."""

    def __init__(self, path: str, file: TextIO) -> None:
        self._path, self._file = path, file
        self.number = self.of_row = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        """Return the next line. Raises BulkError where a row has too many, or for a NUL."""
        line = self._file.readline(MAX_TEXT_CHARS)
        if not line:
            raise StopIteration
        self.number += 1
        self.of_row += 1
        if self.of_row > ROW_LINES:
            raise self.fault(f"the row that begins there takes more than {ROW_LINES} lines; {STRAY}")
        if "\0" in line:
            raise self.fault("a null character; UTF-8 is needed, and this may be UTF-16")
        if len(line) == MAX_TEXT_CHARS:
            raise self.fault(f"the line is longer than {MAX_TEXT_CHARS:,} characters")
        return line

    def pass_row(self) -> None:
        """Take the next line as the first of a row."""
        self.of_row = 0

    def fault(self, told: str) -> BulkError:
        """Return what is wrong with the row that is being read."""
        return BulkError(f"SOURCE {self._path}, line {self.number - self.of_row + 1}: {told}")


def _check_cells(lines: _Lines, cells: Sequence[str], names: Sequence[str], comma: str) -> None:
    """Raise BulkError if a row has cells without a column, or a cell that has swallowed rows."""
    if any(cell.strip() for cell in cells[len(names) :]):
        what = "tab" if comma == "\t" else "comma"
        told = f"{len(cells)} cells, and the header names {len(names)}"
        raise lines.fault(f"{told}; a cell that holds a {what} or a line break stands in quotes")
    is_short = 0 < len(cells) < len(names) and lines.of_row > 1
    if is_short or any(_holds_rows(cell, len(names), comma) for cell in cells):
        raise lines.fault(f"the row that begins there ends in line {lines.number}; {STRAY}")


def _holds_rows(cell: str, width: int, comma: str) -> bool:
    inner = LINE_ENDS.split(cell)[1:-1]
    return (
        width > 1 and len(inner) >= ALIKE_LINES - 1 and all(line.count(comma) == width - 1 for line in inner)
    )


def _cell(cells: Sequence[str], index: int) -> str:
    return cells[index].strip() if index < len(cells) else ""


def _name(cells: Sequence[str], index: int | None) -> str | None:
    return None if index is None else _cell(cells, index)


def parquet_rows(path: str, how: As, column: str | None, id_column: str | None) -> Iterator[Row]:
    """Yield the rows of a Parquet file; a column of binary values holds pictures."""
    pa, pq = arrow(), parquet()
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=READ_BYTES) as file:
            names = file.schema_arrow.names
            chosen = _chosen(path, names, column)
            kind = file.schema_arrow.field(chosen).type
            value_kind = str(kind.value_type if pa.types.is_dictionary(kind) else kind)
            is_binary = value_kind in BINARIES
            if not is_binary and value_kind not in TEXTS:
                raise BulkError(f"--column {chosen} of {path} is {kind}; texts, URLs or pictures are needed")
            wanted = [chosen]
            if id_column is not None:
                wanted.append(_named(path, names, id_column, "--id-column"))
            rows = BATCH_PICTURES if is_binary else BATCH_ROWS
            batches = file.iter_batches(rows, columns=list(dict.fromkeys(wanted)), use_threads=False)
            yield from _parquet_rows(path, how, batches, wanted, is_binary=is_binary and how != "text")
    except pa.ArrowException as fault:
        raise BulkError(f"SOURCE {path} is no whole Parquet file: {_line(fault)}") from None


def _parquet_rows(
    path: str, how: As, batches: Iterator[Any], wanted: Sequence[str], *, is_binary: bool
) -> Iterator[Row]:
    number = 0
    for batch in batches:
        values = batch.column(wanted[0]).to_pylist()
        names = batch.column(wanted[-1]).to_pylist()
        for value, name in zip(values, names, strict=True):
            row_id = None if len(wanted) == 1 else _text(name, errors="surrogateescape")
            if is_binary:
                yield row_of_bytes(value, row_id or f"{path}#{number}")
            else:
                yield row_of_text(_text(value).strip(), how, name=row_id)
            number += 1


def _text(value: Any, errors: str = "strict") -> str:
    """Return *value* as a text, an empty one for None; *errors* is of bytes that are not UTF-8."""
    if value is None:
        return ""
    return value.decode(errors=errors) if isinstance(value, bytes) else str(value)


def _chosen(path: str, names: Sequence[str], column: str | None) -> str:
    """Return the column to embed: the one named, or the only one there is."""
    if column is not None:
        return _named(path, names, column, "--column")
    if len(names) == 1:
        return names[0]
    raise BulkError(f"--column is needed for {path}, which has {_told(names)}")


def _named(path: str, names: Sequence[str], column: str, option: str) -> str:
    if names.count(column) > 1:
        raise BulkError(f"{option} {column}: {path} has {names.count(column)} columns of this name")
    if column in names:
        return column
    raise BulkError(f"{option} {column}: {path} has no such column; it has {_told(names)}")


def _line(fault: Exception) -> str:
    return str(fault).partition("\n")[0]


def _told(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "none"


def parquet_count(path: str) -> int:
    """Return how many rows a Parquet file has. Raises BulkError if it is none."""
    try:
        return int(parquet().read_metadata(path).num_rows)
    except (arrow().ArrowException, OSError) as fault:
        raise BulkError(f"SOURCE {path} is no whole Parquet file: {_line(fault)}") from None
