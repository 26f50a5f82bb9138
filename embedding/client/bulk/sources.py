"""What is to be embedded, as a stream of rows that is the same each time: what a SOURCE may be.

Nothing is extracted or held: a folder is walked name by name, a list line by line, an archive header by
header. The order is that of the names in each folder, of the lines in a list, of the rows in a table.
"""

from __future__ import annotations

import glob
import itertools
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from embedding.client.bulk.errors import BulkError
from embedding.client.bulk.rows import MAX_TEXT_CHARS, PICTURES, row_of_file, row_of_text
from embedding.client.bulk.tables import csv_rows, parquet_count, parquet_rows
from embedding.client.bulk.tar import tar_rows


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from embedding.client.bulk.rows import As, Row

STDIN: Final = "-"
KINDS: Final = (
    "a folder, a glob in quotes, a picture, a .txt, .csv, .tsv, .parquet or .tar file, or - for stdin"
)


@dataclass(frozen=True, slots=True)
class Reading:
    """How lists, tables and archives are read: what their values are, and the columns that hold them.

    *own* are the files and folders, by their real paths, that the run itself writes.
    """

    how: As = "auto"
    column: str | None = None
    id_column: str | None = None
    own: frozenset[str] = frozenset()

    def is_own(self, path: str) -> bool:
        """Return whether *path* is what the run itself writes."""
        if not any(os.path.basename(own) in path for own in self.own):  # noqa: PTH119  a Path for each costs
            return False
        real = Path(path).parent.resolve() / Path(path).name
        return any(real.is_relative_to(own) for own in self.own)


def rows_of(sources: Sequence[str], reading: Reading) -> Iterator[Row]:
    """Yield the rows of all *sources*, in this order. Raises BulkError if one cannot be read."""
    for source in sources:
        with _told_of(source):
            yield from _reader(source, reading)()


def check(sources: Sequence[str], reading: Reading) -> None:
    """Raise BulkError if a source is of no known kind, is not there, or has no row to begin with."""
    if sources.count(STDIN) > 1:
        raise BulkError("SOURCE - is given twice; stdin can be read once")
    readable = [source for source in sources if source != STDIN]
    for source in readable:
        if reading.is_own(source):
            raise BulkError(f"SOURCE {source} is what this run writes: give another --out")
        with _told_of(source):
            _reader(source, reading)
    if len(readable) == len(sources) and next(rows_of(sources, reading), None) is None:
        raise BulkError(f"SOURCE {' '.join(sources)}: nothing in it to embed{_looked_for(sources)}")


@contextmanager
def _told_of(source: str) -> Iterator[None]:
    """Raise BulkError where *source* cannot be read, with the file or folder in it that is to blame."""
    try:
        yield
    except UnicodeDecodeError as fault:
        raise BulkError(f"SOURCE {source} is not UTF-8 text: {fault.reason}") from None
    except OSError as fault:
        where = f": {fault.filename}" if fault.filename not in (None, source) else ""
        raise BulkError(f"SOURCE {source} cannot be read{where}: {_line(fault)}") from None


def _line(fault: OSError) -> str:
    return (fault.strerror or str(fault)).partition("\n")[0]


def _looked_for(sources: Sequence[str]) -> str:
    if not any(Path(source).is_dir() for source in sources):
        return ""
    return f"; in a folder, files are looked for that end in {' '.join(sorted(PICTURES))}"


def _reader(source: str, reading: Reading) -> Callable[[], Iterator[Row]]:
    """Return what reads *source*, by what it is and what its name ends in."""
    path = Path(source)
    if source == STDIN:
        return lambda: _stdin(reading.how)
    return _of_path(source, reading) if path.exists() else _of_glob(source, reading)


def _of_path(source: str, reading: Reading) -> Callable[[], Iterator[Row]]:
    if Path(source).is_dir():
        return lambda: (row_of_file(name, name) for name in _files(source))
    return _of_file(source, reading)


def _of_file(source: str, reading: Reading) -> Callable[[], Iterator[Row]]:
    suffix = Path(source).suffix.lower()
    columns = (reading.column, reading.id_column)
    readers: dict[str, Callable[[], Iterator[Row]]] = {
        ".txt": lambda: _list(source, reading.how),
        ".csv": lambda: csv_rows(source, reading.how, *columns),
        ".tsv": lambda: csv_rows(source, reading.how, *columns),
        ".parquet": lambda: parquet_rows(source, reading.how, *columns),
        ".tar": lambda: tar_rows(source, reading.how),
    }
    if suffix in PICTURES:
        return lambda: iter([row_of_file(source, source)])
    if suffix not in readers:
        raise BulkError(f"SOURCE {source} is of no known kind: give {KINDS}")
    if not Path(source).is_file():
        raise BulkError(f"SOURCE {source} is no regular file, and is read more than once; - reads stdin")
    return readers[suffix]


def _of_glob(pattern: str, reading: Reading) -> Callable[[], Iterator[Row]]:
    files = _found(pattern, reading)
    for name in files:
        _of_path(name, reading)
    return lambda: (row for name in files for row in _of_path(name, reading)())


def _found(pattern: str, reading: Reading) -> list[str]:
    """Return the names that *pattern* stands for, in order, without what the run itself writes."""
    if pattern.startswith(("http://", "https://")):
        raise BulkError(
            "SOURCE is a URL: write URLs into a .txt file, one a line, or send them to - by stdin"
        )
    if not glob.has_magic(pattern):
        raise BulkError(f"SOURCE {pattern} is not there")
    found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  it takes absolute patterns, and ** alike
    found = [name for name in found if not reading.is_own(name)]
    files = [name for name in found if not Path(name).is_dir()] if "**" in pattern else found
    if not files:
        advice = "; a [ that stands in a name is written [[]" if "[" in pattern else ""
        raise BulkError(f"SOURCE {pattern}: no file has such a name{advice}")
    return files


def _files(folder: str) -> Iterator[str]:
    """Yield the pictures below *folder*; hidden files and folders, and links to folders, are left out."""
    with os.scandir(folder) as entries:
        listed = sorted((entry for entry in entries if entry.name[0] != "."), key=lambda entry: entry.name)
    for entry in listed:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path)
        elif os.path.splitext(entry.name)[1].lower() in PICTURES:  # noqa: PTH122  a Path for each file costs
            yield entry.path


def _list(path: str, how: As) -> Iterator[Row]:
    with Path(path).open("rb") as file:
        yield from _lines(path, file, how)


def _stdin(how: As) -> Iterator[Row]:
    if sys.stdin is None:
        raise BulkError("SOURCE -: stdin is closed")
    # A buffer of its own: whoever waits in sys.stdin's holds its lock, which the interpreter takes to end.
    with open(sys.stdin.fileno(), "rb", closefd=False) as file:
        yield from _lines(STDIN, file, how)


def _lines(name: str, file: BinaryIO, how: As) -> Iterator[Row]:
    return (row_of_text(text, how) for text in _texts(name, file))


def _texts(name: str, file: BinaryIO) -> Iterator[str]:
    """Yield each line that is not blank. Raises BulkError for one that is no text."""
    for number in itertools.count(1):
        line = file.readline(MAX_TEXT_CHARS)
        if not line:
            return
        if len(line) == MAX_TEXT_CHARS or b"\0" in line:
            told = "a null character" if b"\0" in line else "no end within 10 million bytes"
            raise BulkError(f"SOURCE {name}, line {number}: {told}; a list is UTF-8 text, an item a line")
        for part in line.decode("utf-8-sig" if number == 1 else "utf-8").split("\r"):
            if text := part.strip():
                yield text


def count_rows(sources: Sequence[str], reading: Reading) -> int:
    """Return how many rows *sources* have; a walk, by names alone where they tell. Raises BulkError.

    Of stdin, which can be read once, there is no count.
    """
    count = 0
    for source in sources:
        with _told_of(source):
            count += _count(source, reading)
    return count


def _count(source: str, reading: Reading) -> int:
    if Path(source).exists():
        return _count_path(source, reading)
    return sum(_count_path(name, reading) for name in _found(source, reading))


def _count_path(source: str, reading: Reading) -> int:
    path = Path(source)
    if path.is_dir():
        return sum(1 for _ in _files(source))
    if path.suffix.lower() == ".parquet":
        return parquet_count(source)
    if path.suffix.lower() == ".txt":  # rows of files would be looked for on disk
        with path.open("rb") as file:
            return sum(1 for _ in _texts(source, file))
    return sum(1 for _ in _of_path(source, reading)())
