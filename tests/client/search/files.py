"""Files of vectors, as a search finds them."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


FINGERPRINT = "21139c19733c0c1a"  # of the demo model


def write_parquet(path, ids, vectors, *, fingerprint=FINGERPRINT, model="demo", group_rows=None):
    """Write *vectors* (n, dim), where None is a null, with *ids* in row groups of *group_rows*."""
    array = pa.array([None if row is None else np.asarray(row) for row in vectors], list_type(vectors))
    metadata = {} if fingerprint is None else {"fingerprint": fingerprint, "model": model}
    schema = pa.schema([("id", pa.string()), ("vector", array.type)], metadata=metadata)
    table = pa.table([pa.array(ids, pa.string()), array], schema=schema)
    pq.write_table(table, path, row_group_size=group_rows)
    return path


def list_type(vectors):
    """Return the fixed-size list that holds *vectors*."""
    row = next(np.asarray(row) for row in vectors if row is not None)
    kind = {"float16": pa.float16(), "float32": pa.float32(), "float64": pa.float64()}[row.dtype.name]
    return pa.list_(kind, len(row))


def write_npy(path, ids, vectors, *, about=None):
    """Write *vectors* (n, dim) with *ids* beside them, and *about* where it is given."""
    np.save(path, vectors)
    path.with_suffix(".ids.txt").write_text("".join(f"{name}\n" for name in ids), encoding="utf-8")
    if about is not None:
        path.with_suffix(".json").write_text(json.dumps(about), encoding="utf-8")
    return path


def some_vectors(count, dim=16, *, seed=0, dtype="float32"):
    """Return *count* random vectors (count, dim)."""
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(dtype)
