"""What stands at OUT already: whether such a run made it, of the same order and source, with its list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedding.client.bulk.errors import BulkError
from embedding.client.bulk.failures import check_failures, read_failures
from embedding.client.bulk.folder import folder_name
from embedding.client.bulk.formats import failures_name
from embedding.client.bulk.walk import Walk
from embedding.client.errors import TOLD_CHARS


if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from embedding.client.bulk.formats import Format
    from embedding.client.bulk.parts import Failure
    from embedding.client.bulk.rows import Row
    from embedding.client.bulk.walk import Done


def own_paths(out: Path, formats: Format) -> frozenset[str]:
    """Return the real paths of all files and folders that a run of *out* writes."""
    place = out.parent.resolve()
    names = [*formats.names(out), failures_name(out), folder_name(out)]
    return frozenset(str(place / name) for name in names)


def must_be_files(out: Path, formats: Format) -> None:
    """Raise BulkError if a folder has the name of a file that a run of *out* writes."""
    for path in map(out.with_name, [*formats.names(out), failures_name(out)]):
        if path.is_dir():
            raise BulkError(f"--out {out}: {path} is a folder")


def output_of(out: Path, formats: Format) -> dict[str, Any] | None:
    """Return what the output at *out* says of itself; None if there is none, or not of such a run."""
    return formats.about(out) if out.exists() else None


def must_be_ours(out: Path, formats: Format) -> None:
    """Raise BulkError if no such run made what is in the place of *out*, or of a file beside it."""
    there = [path for path in map(out.with_name, formats.names(out)) if path.exists()]
    if there and formats.about(out) is None:
        raise BulkError(f"{there[0]} is there, and not of such a run: give another --out, or --restart")


def must_be_same(given: Any, wanted: dict[str, Any], what: str) -> None:
    """Raise BulkError, which says *what*, unless *given* and *wanted* decide alike which row stands where."""
    given = given if isinstance(given, dict) else {}
    other = [name for name, value in wanted.items() if given.get(name) != value]
    if other:
        told = "; ".join(f"{name} {_short(given.get(name))}, now {_short(wanted[name])}" for name in other)
        raise BulkError(f"{what} otherwise: {told}: --restart begins anew, another --out keeps both")


def _short(value: Any) -> str:
    told = repr(value)
    return told if len(told) <= TOLD_CHARS else f"{told[:TOLD_CHARS]}…"


def check_list(out: Path, about: dict[str, Any]) -> None:
    """Raise BulkError unless the list of failures beside *out* is the one it was written with."""
    if about["failed"]:
        path = out.with_name(failures_name(out))
        check_failures(path, count=about["failed"], digest=about["failures_digest"])


def listed(out: Path, about: dict[str, Any]) -> Iterator[Failure]:
    """Yield the failed rows of *out*, which says *about* of itself. Raises BulkError without their list."""
    return read_failures(out.with_name(failures_name(out))) if about["failed"] else iter(())


def check_source(out: Path, about: dict[str, Any], rows: Iterable[Row], done: Done) -> None:
    """Raise BulkError unless *out* was made of *rows*, the source's; files that failed may be others now."""
    walk = Walk(rows, done, about["identity"]["part_rows"], 1, 1, listed(out, about))
    for _ in walk:
        pass
    must_be_source_of(out, about, walk)


def must_be_source_of(out: Path, about: dict[str, Any], walk: Walk) -> None:
    """Raise BulkError unless *walk* has gone over the source that *out* was made of."""
    if (walk.count, walk.digests.before) != (about["rows"], about["source_digest"]):
        told = f"it has {walk.count} rows, and had {about['rows']}"
        if walk.count == about["rows"]:
            told = "some of its rows are others"
        raise BulkError(
            f"the source has changed since {out} was made ({told}): --restart makes it anew, "
            "another --out keeps both"
        )
