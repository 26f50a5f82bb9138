"""The nearest rows to each query: exact, in blocks, by cosine, in an order that never depends on chance.

Every row is compared, by matrix products in float32. Rows that may be among the best are compared again in
float64, so that equal vectors have equal cosines wherever they stand; of equals the first in the file comes
first. Vectors need not be normalised. Those that are not finite or zero have no direction: they are left
out, and counted.

A million vectors of 512 float32 take 2 s on two cores, most of it in reading Parquet: an index would have to
be read as well, and finds less, so there is none.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np


if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from embedding.client.search.store import Part, Store

    Floats = npt.NDArray[np.float32]
    Doubles = npt.NDArray[np.float64]

SLACK: Final = 2e-7  # for each number of a vector: what the scores of two, in float32, are off by at worst
DECIMALS: Final = 9
SQUARES: Final = (1e-25, 1e25)  # what a squared norm keeps its precision within
THREADS: Final = 4
ALONE: Final = 1 << 18  # multiplications that OpenBLAS, which numpy brings, leaves to the calling thread
PIECE_QUERIES: Final = 8
MANY_QUERIES: Final = 64
LOWEST: Final = -2.0  # below any cosine
_PRODUCTS: Final = threading.Lock()


@dataclass(frozen=True, slots=True)
class Hit:
    """A row of the file, and its cosine to the query."""

    row: int
    cosine: float


@dataclass(frozen=True, slots=True)
class Ranking:
    """For each query its hits, best first; *skipped* rows have no direction."""

    hits: tuple[tuple[Hit, ...], ...]
    skipped: int


def rank(store: Store, queries: Floats, *, top: int) -> Ranking:
    """Return the *top* rows of *store* nearest to each of *queries* (n, dim), finite and not zero."""
    wide = queries.astype(np.float64)
    units = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    best = [_Best(top) for _ in units]
    skipped = 0
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as threads:
        for found, without in threads.map(lambda part: _of_part(part, units, top), store.parts()):
            skipped += without
            for ours, theirs in zip(best, found, strict=True):
                ours.merge(theirs.rows, theirs.cosines)
    return Ranking(tuple(each.hits() for each in best), skipped)


class _Best:
    """The best rows of one query so far, in their order."""

    def __init__(self, top: int) -> None:
        self._top = top
        self.rows = np.empty(0, np.int64)
        self.cosines = np.empty(0, np.float64)

    def add(self, first_row: int, scores: Floats, block: Floats, query: Doubles) -> None:
        """Judge the rows of *block* by their *scores* (n,), about their cosines to *query*."""
        floor = self.cosines[-1] if len(self.rows) == self._top else LOWEST
        slack = SLACK * block.shape[1]
        places = np.flatnonzero(scores >= floor - slack)
        if len(places) > self._top:
            bound = np.partition(scores[places], -self._top)[-self._top]
            places = places[scores[places] >= bound - slack]
        if len(places):
            self.merge(first_row + places, _cosines(block[places], query))

    def merge(self, rows: npt.NDArray[np.int64], cosines: Doubles) -> None:
        """Keep the best of what is here and of *rows*."""
        all_rows = np.concatenate([self.rows, rows])
        all_cosines = np.concatenate([self.cosines, cosines])
        order = np.lexsort((all_rows, -all_cosines))[: self._top]
        self.rows, self.cosines = all_rows[order], all_cosines[order]

    def hits(self) -> tuple[Hit, ...]:
        return tuple(map(Hit, self.rows.tolist(), self.cosines.tolist()))


def _of_part(part: Part, units: Doubles, top: int) -> tuple[Sequence[_Best], int]:
    """Return the best rows of *part* for each of *units*, and how many rows have no direction."""
    best = [_Best(top) for _ in units]
    narrow = np.ascontiguousarray(units.astype(np.float32).T)
    skipped = 0
    with np.errstate(all="ignore"):
        for first_row, raw in part():
            block, norms = _in_range(raw)
            skipped += int(np.isnan(norms).sum())
            scores = _products(block, narrow)
            for kept, row_scores, query in zip(best, scores, units, strict=True):
                kept.add(first_row, row_scores / norms, block, query)
    return best, skipped


def _products(block: Floats, narrow: Floats) -> Floats:
    """Return *narrow* (dim, queries) times *block* (n, dim), as (queries, n).

    A product that uses all cores leaves its threads spinning, and those that read files wait for a core: it
    is made in pieces too small for that. Of many queries it is what takes longest, and comes whole.
    """
    queries = narrow.shape[1]
    if queries > MANY_QUERIES:
        with _PRODUCTS:  # one at a time: two slow each other down
            return np.ascontiguousarray((block @ narrow).T)
    scores = np.empty((queries, len(block)), np.float32)
    for first in range(0, queries, PIECE_QUERIES):
        some = narrow[:, first : first + PIECE_QUERIES]
        step = max(1, ALONE // some.size)
        for row in range(0, len(block), step):
            scores[first : first + PIECE_QUERIES, row : row + step] = (block[row : row + step] @ some).T
    return scores


def _in_range(block: Floats) -> tuple[Floats, Floats]:
    """Return *block*, its rows scaled where their squares leave float32's range, and the norm of each row.

    The norm is NaN where a row has no direction: a NaN is never above a floor.
    """
    squares = np.einsum("ij,ij->i", block, block)
    low, high = SQUARES
    odd = np.flatnonzero(~((squares > low) & (squares < high)))
    if len(odd):
        block = block.copy()
        largest = np.abs(block[odd]).max(axis=1, keepdims=True)
        block[odd] = block[odd] / np.where(np.isfinite(largest), largest, np.nan)
        squares[odd] = np.einsum("ij,ij->i", block[odd], block[odd])
    return block, np.sqrt(squares)


def _cosines(rows: Floats, query: Doubles) -> Doubles:
    wide = rows.astype(np.float64)
    products = np.einsum("ij,j->i", wide, query)
    return np.clip(np.round(products / np.sqrt(np.einsum("ij,ij->i", wide, wide)), DECIMALS), -1, 1)
