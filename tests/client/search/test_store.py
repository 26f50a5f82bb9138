"""A file that is no file of vectors is refused in one line that says what is wrong with it."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedding.client.bulk.formats import format_of
from embedding.client.search import store as stores
from embedding.client.search.store import Origin, Unsearchable, open_store
from tests.client.search.files import some_vectors, write_npy, write_parquet


def table(path, **columns):
    """Write a Parquet file of *columns*."""
    pq.write_table(pa.table(columns), path)
    return path


def vectors_of(kind, count=2):
    """Return a column of *count* fixed-size lists of *kind*."""
    return pa.array([[1.0, 2.0]] * count, pa.list_(kind, 2))


def read_whole(store):
    """Read all vectors and ids of *store*."""
    for part in store.parts():
        list(part())
    return store.ids(range(store.rows))


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"vector": vectors_of(pa.float32())}, "must have one column id; its columns: vector"),
        ({"id": ["a", "b"]}, "must have one column vector; its columns: id"),
        ({"id": [1, 2], "vector": vectors_of(pa.float32())}, "column id must hold strings, not int64"),
        ({"id": ["a"], "vector": pa.array([[1.0]])}, "must be a fixed-size list of float32 or float16, not"),
        ({"id": ["a", "b"], "vector": vectors_of(pa.float64())}, "must be a fixed-size list of float32"),
        ({"id": ["a", "b"], "vector": pa.array(["x", "y"])}, "must be a fixed-size list of float32"),
    ],
)
def test_columns(columns, told, tmp_path):
    """The columns are id, of strings, and vector, of float32 or float16."""
    with pytest.raises(Unsearchable, match=told):
        open_store(table(tmp_path / "v.parquet", **columns))


@pytest.mark.parametrize("name", ["v.parquet", "v.npy"])
@pytest.mark.parametrize("content", [b"", b"PAR1", b"\x93NUMPY\x01\x00", b"hello"])
def test_what_is_no_such_file(name, content, tmp_path):
    """An empty or a damaged file is told as such."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Unsearchable, match="cannot be read as"):
        open_store(tmp_path / name)


def test_what_is_not_there(tmp_path):
    """A name that is no file leads to the command that makes one."""
    with pytest.raises(Unsearchable, match="is not a file; `python -m embedding embed` makes one"):
        open_store(tmp_path / "v.parquet")


@pytest.mark.parametrize("array", [np.zeros(3, "f4"), np.zeros((3, 4), "f8"), np.zeros((3, 4), "i4")])
def test_arrays(array, tmp_path):
    """An array is (n, dim) of float32 or float16."""
    with pytest.raises(Unsearchable, match=r"must be \(n, dim\) of float32 or float16, not"):
        open_store(write_npy(tmp_path / "v.npy", ["a"], array))


@pytest.mark.parametrize("name", ["v.parquet", "v.npy"])
def test_nothing_but_failures(name, tmp_path):
    """The output of a run whose rows have all failed is told as such."""
    about = {"dtype": "float32", "dim": 0, "fingerprint": None, "model": None}
    format_of(tmp_path / name).write(tmp_path / name, iter(()), 0, about)
    with pytest.raises(Unsearchable, match="holds no vector: every row"):
        open_store(tmp_path / name)


def test_pickles_are_not_loaded(tmp_path):
    """An array of objects, which could run code, is refused."""
    np.save(tmp_path / "v.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(Unsearchable, match="cannot be read as an array"):
        open_store(tmp_path / "v.npy")


@pytest.mark.parametrize("count", [9, 11])
def test_ids_beside_an_array(count, tmp_path):
    """There are as many ids as vectors."""
    with pytest.raises(Unsearchable, match=f"has 10 vectors, v.ids.txt {count} ids"):
        open_store(write_npy(tmp_path / "v.npy", ["x"] * count, some_vectors(10)))
    (tmp_path / "v.ids.txt").unlink()
    with pytest.raises(Unsearchable, match="is missing: the ids of v"):
        open_store(tmp_path / "v.npy")


@pytest.mark.parametrize("fingerprint", ["21139c19733c0c1a", "", None])
def test_origin(fingerprint, tmp_path):
    """Either file says what made it, or that it does not know."""
    vectors = some_vectors(2)
    parquet = write_parquet(tmp_path / "v.parquet", ["a", "b"], vectors, fingerprint=fingerprint)
    about = None if fingerprint is None else {"fingerprint": fingerprint, "model": "demo", "dim": 16}
    npy = write_npy(tmp_path / "v.npy", ["a", "b"], vectors, about=about)
    expected = Origin(fingerprint or None, None if fingerprint is None else "demo")

    assert open_store(parquet).origin == open_store(npy).origin == expected


@pytest.mark.parametrize("content", ["{", json.dumps([1])])
def test_origin_that_cannot_be_read(content, tmp_path):
    """A damaged file beside an array is told as such."""
    path = write_npy(tmp_path / "v.npy", ["a", "b"], some_vectors(2))
    path.with_suffix(".json").write_text(content, encoding="utf-8")
    with pytest.raises(Unsearchable, match="is not JSON with the keys fingerprint and model"):
        open_store(path)


def damaged(path, at):
    """Overwrite 80 bytes of the file at *path* from *at* of its length on."""
    data = bytearray(path.read_bytes())
    start = int(len(data) * at)
    data[start : start + 80] = bytes(range(90, 170))
    path.write_bytes(data)


@pytest.mark.parametrize("at", [0.001, 0.01])
def test_a_file_with_a_damaged_page(at, tmp_path):
    """What its footer does not tell is told, in one line, when it is read."""
    vectors = some_vectors(20)
    path = write_parquet(tmp_path / "v.parquet", [f"row {n}" for n in range(20)], vectors)
    damaged(path, at)
    with pytest.raises(Unsearchable, match="cannot be read as Parquet") as refusal:
        read_whole(open_store(path))

    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["v.parquet", "v.npy"])
def test_a_file_that_is_replaced_meanwhile(name, tmp_path):
    """Vectors and ids of two files never meet."""
    write = write_npy if name == "v.npy" else write_parquet
    store = open_store(write(tmp_path / name, ["a", "b"], some_vectors(2)))
    (tmp_path / "other").mkdir()
    write(tmp_path / "other" / name, ["c", "d"], some_vectors(2, seed=1))
    for path in (tmp_path / "other").iterdir():
        path.replace(tmp_path / path.name)
    with pytest.raises(Unsearchable, match="was changed while it was read: search again"):
        read_whole(store)


def test_ids_that_are_not_utf8(tmp_path):
    """Beside an array they are kept by their bytes, which name a file; in Parquet there are none."""
    path = write_npy(tmp_path / "v.npy", ["a", "b"], some_vectors(2))
    path.with_suffix(".ids.txt").write_bytes(b"a\n\xff.png")
    text = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")]
    )
    broken = table(tmp_path / "v.parquet", id=text, vector=vectors_of(pa.float32(), 1))

    assert open_store(path).ids([0, 1]) == {0: "a", 1: "\udcff.png"}
    with pytest.raises(Unsearchable, match="cannot be read as Parquet: 'utf-8' codec"):
        open_store(broken).ids([0])


def test_a_row_group_is_not_held(tmp_path, monkeypatch):
    """Of a file that is one row group some blocks are in memory."""
    monkeypatch.setattr(stores, "BLOCK_BYTES", 1 << 20)
    path = write_parquet(tmp_path / "v.parquet", ["x"] * 20_000, some_vectors(20_000, 256))
    before = pa.total_allocated_bytes()
    (part,) = open_store(path).parts()
    held = [pa.total_allocated_bytes() - before for _ in part()]

    assert len(held) == 20
    assert max(held) < 12_000_000
