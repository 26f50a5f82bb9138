"""The nearest rows are those that a sort of all cosines gives, and chance has no part in their order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding.client.search import rank as rank_module
from embedding.client.search import store as stores
from embedding.client.search.rank import rank
from embedding.client.search.store import open_store
from tests.client.search.files import some_vectors, write_npy, write_parquet


QUERIES = some_vectors(3, seed=1)


def names(count):
    """Return an id for each of *count* rows."""
    return [f"row {place}" for place in range(count)]


def by_sorting(vectors, query, top):
    """Return the rows nearest to *query*, by a stable sort of all cosines in float64."""
    wide = np.asarray(vectors, dtype=np.float64)
    cosines = np.round(wide @ query / np.linalg.norm(wide, axis=1) / np.linalg.norm(query), 9)
    return np.argsort(-cosines, kind="stable")[:top].tolist()


def rows_of(ranking):
    """Return the rows of each query."""
    return [[hit.row for hit in hits] for hits in ranking.hits]


@pytest.fixture
def small_blocks(monkeypatch):
    """Let a block hold 7 rows of 16 numbers."""
    monkeypatch.setattr(stores, "BLOCK_BYTES", 7 * 16 * 4)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("kind", ["npy", "parquet"])
@pytest.mark.parametrize("top", [1, 5, 99, 100, 101])
def test_is_what_sorting_gives(kind, dtype, top, small_blocks, tmp_path):
    """For either file, either dtype, and more rows asked than there are."""
    vectors = some_vectors(100, dtype=dtype) * 3
    if kind == "npy":
        path = write_npy(tmp_path / "v.npy", names(100), vectors)
    else:
        path = write_parquet(tmp_path / "v.parquet", names(100), vectors, group_rows=30)
    store = open_store(path)
    ranking = rank(store, QUERIES, top=top)

    assert rows_of(ranking) == [by_sorting(vectors, query, top) for query in QUERIES]
    assert store.ids([0, 29, 30, 99]) == {row: f"row {row}" for row in (0, 29, 30, 99)}


@pytest.mark.parametrize("count", [1, 8, 9, rank_module.MANY_QUERIES, rank_module.MANY_QUERIES + 1])
def test_many_queries(count, small_blocks, tmp_path):
    """Each query finds its own rows, however many are asked at once and into what pieces products fall."""
    vectors, queries = some_vectors(40), some_vectors(count, seed=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rank_module, "ALONE", 16 * 8 * 3)
        ranking = rank(open_store(write_npy(tmp_path / "v.npy", names(40), vectors)), queries, top=5)

    assert rows_of(ranking) == [by_sorting(vectors, query, 5) for query in queries]


def test_rows_that_float32_cannot_tell_apart(tmp_path):
    """The order of long vectors that are nearly the same is that of their cosines, not of rounding."""
    chance = np.random.default_rng(0)
    vectors = np.repeat(0.5 + chance.random((20, 1)), 65_536, axis=1)
    vectors[:, :64] *= 1 + chance.random((20, 1))
    query = np.ones((1, 65_536), np.float32)
    path = write_npy(tmp_path / "v.npy", names(20), vectors.astype(np.float32))
    ranking = rank(open_store(path), query, top=3)

    assert rows_of(ranking) == [by_sorting(vectors.astype(np.float32), query[0], 3)]


@given(
    levels=st.lists(st.integers(0, 3), min_size=1, max_size=60),
    top=st.integers(1, 20),
)
def test_equals_stand_in_the_order_of_the_file(levels, top, tmp_path_factory):
    """Of rows with one vector the first come first, wherever blocks and parts end."""
    base = some_vectors(4)
    vectors = base[levels]
    path = write_npy(tmp_path_factory.mktemp("ties") / "v.npy", names(len(levels)), vectors)

    assert rows_of(rank(open_store(path), QUERIES[:1], top=top)) == [by_sorting(vectors, QUERIES[0], top)]


def test_a_whole_file_of_one_vector(small_blocks, tmp_path):
    """The first rows are found, each with cosine 1."""
    vectors = np.repeat(QUERIES[:1], 1000, axis=0)
    path = write_parquet(tmp_path / "v.parquet", names(1000), vectors, group_rows=70)
    hits = rank(open_store(path), QUERIES[:1], top=20).hits[0]

    assert [(hit.row, hit.cosine) for hit in hits] == [(row, 1.0) for row in range(20)]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0], ids=["nan", "inf", "-inf", "zero"])
def test_a_row_without_direction_is_left_out(value, tmp_path):
    """Nothing is as near as NaN, and its neighbours keep their cosines."""
    vectors = some_vectors(10)
    before = rank(open_store(write_npy(tmp_path / "a.npy", names(10), vectors)), QUERIES, top=10)
    vectors[4] = value
    ranking = rank(open_store(write_npy(tmp_path / "b.npy", names(10), vectors)), QUERIES, top=10)

    assert ranking.skipped == 1
    assert ranking.hits == tuple(tuple(hit for hit in hits if hit.row != 4) for hits in before.hits)


def test_a_null_is_left_out(tmp_path):
    """A row without a vector is skipped, in Parquet."""
    vectors = [*some_vectors(3), None, *some_vectors(3, seed=2)]
    ranking = rank(open_store(write_parquet(tmp_path / "v.parquet", names(7), vectors)), QUERIES, top=7)

    assert ranking.skipped == 1
    assert {hit.row for hit in ranking.hits[0]} == {0, 1, 2, 4, 5, 6}


@pytest.mark.parametrize("scale", [1e-38, 1e-20, 1e20, 1e37])
def test_length_does_not_matter(scale, tmp_path):
    """A vector has the cosine of its direction, even where its squares leave float32."""
    vectors = some_vectors(10)
    vectors[3] = QUERIES[0] * np.float32(scale)
    hit = rank(open_store(write_npy(tmp_path / "v.npy", names(10), vectors)), QUERIES, top=1).hits[0][0]

    assert hit.row == 3
    assert hit.cosine == pytest.approx(1, abs=1e-5)
