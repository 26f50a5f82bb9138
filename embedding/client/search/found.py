"""What a search found, as it is printed, written as JSON, or shown."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final


if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedding.client.search.queries import Query
    from embedding.client.search.rank import Ranking
    from embedding.client.search.store import Origin, Store

DECIMALS: Final = 4
LONE: Final = re.compile("[\ud800-\udfff]")  # half a pair, as in names that are not UTF-8: no encoding has it


@dataclass(frozen=True, slots=True)
class Result:
    """One row that was found."""

    rank: int
    cosine: float
    id: str


@dataclass(frozen=True, slots=True)
class Found:
    """All that was found in a file of *rows*, of which *skipped* have no direction."""

    origin: Origin
    rows: int
    skipped: int
    results: tuple[tuple[Query, tuple[Result, ...]], ...]


def found_in(store: Store, origin: Origin, queries: Sequence[Query], ranking: Ranking) -> Found:
    """Return *ranking* with the ids of its rows."""
    ids = store.ids(sorted({hit.row for hits in ranking.hits for hit in hits}))
    results = tuple(
        tuple(Result(rank, hit.cosine, ids[hit.row]) for rank, hit in enumerate(hits, start=1))
        for hits in ranking.hits
    )
    return Found(origin, store.rows, ranking.skipped, tuple(zip(queries, results, strict=True)))


def as_table(found: Found) -> str:
    """Return a table for each query: rank, cosine, id. Nothing in an id can steer the terminal."""
    tables = []
    for query, results in found.results:
        lines = [f"{'image ' if query.kind == 'image' else ''}{plain(query.value)}"]
        width = max(len("rank"), len(str(len(results))))
        lines.append(f"{'rank':>{width}}  cosine  id")
        lines += [f"{each.rank:>{width}}  {each.cosine:6.{DECIMALS}f}  {plain(each.id)}" for each in results]
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def as_json(found: Found) -> str:
    """Return one JSON document: model, fingerprint, rows, skipped, queries with their results."""
    document: dict[str, Any] = {
        "model": found.origin.model,
        "fingerprint": found.origin.fingerprint,
        "rows": found.rows,
        "skipped": found.skipped,
        "queries": [
            {
                query.kind: query.value,
                "results": [{"rank": each.rank, "cosine": each.cosine, "id": each.id} for each in results],
            }
            for query, results in found.results
        ],
    }
    return LONE.sub(lambda half: f"\\u{ord(half[0]):04x}", json.dumps(document, indent=2, ensure_ascii=False))


def plain(text: str) -> str:
    """Return *text* on one line, with what is not printable as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
