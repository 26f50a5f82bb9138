"""What stands at OUT already: whether such a run made it, of the same order, with its list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedding.client.bulk.errors import BulkError
from embedding.client.bulk.failures import check_failures
from embedding.client.bulk.formats import failures_name


if TYPE_CHECKING:
    from pathlib import Path

    from embedding.client.bulk.formats import Format


def output_of(out: Path, formats: Format) -> dict[str, Any] | None:
    """Return what the output at *out* says of itself, None if there is none.

    Raises BulkError if no such run made what is there.
    """
    about = formats.about(out)
    there = [path for path in map(out.with_name, formats.names(out)) if path.exists()]
    if about is None and there:
        raise BulkError(f"{there[0]} is there, and not of such a run: give another --out, or --restart")
    return about if out.exists() else None


def must_be_same(given: Any, wanted: dict[str, Any], what: str) -> None:
    """Raise BulkError, which says *what*, unless *given* and *wanted* decide alike which row stands where."""
    given = given if isinstance(given, dict) else {}
    other = [name for name, value in wanted.items() if given.get(name) != value]
    if other:
        told = "; ".join(f"{name} {given.get(name)!r}, now {wanted[name]!r}" for name in other)
        raise BulkError(f"{what} otherwise: {told}: --restart begins anew, another --out keeps both")


def check_list(out: Path, about: dict[str, Any]) -> None:
    """Raise BulkError unless the list of failures beside *out* is the one it was written with."""
    if about["failed"]:
        path = out.with_name(failures_name(out))
        check_failures(path, count=about["failed"], digest=about["failures_digest"])
