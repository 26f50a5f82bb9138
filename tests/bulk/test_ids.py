"""An id is what it was, in parts, in the output and in the list of failed items, whatever stands in it."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from embedding.client.bulk.digests import Digests
from embedding.client.bulk.failures import FailureWriter, read_failures
from embedding.client.bulk.folder import RunFolder
from embedding.client.bulk.formats import format_of
from embedding.client.bulk.merge import Made, publish
from embedding.client.bulk.parts import Failure, OpenPart
from embedding.client.errors import ItemError


IDS = [
    "plain",
    "",
    " ",
    "with \"quotes\", commas and 'others'",
    "two\nlines",
    "two\r\nlines",
    "a\rb",
    "ends\n",
    "\n",
    "nul\0nul",
    "\v\f\x1c\x85\u2028",
    "\U0001f41f",
    "=1+1",
    "\ufeffmark",
]
NOT_UNICODE = [
    (b"caf\xe9.png".decode("utf-8", "surrogateescape"), r"caf\udce9.png"),
    ("half\ud83d", r"half\ud83d"),
]
STORED = [*((row_id, row_id) for row_id in IDS), *NOT_UNICODE]


def published(out):
    """Publish one part of rows with all ids, of which every one has a vector once, and failed once."""
    about = {"identity": {}, "source_digest": "", "made_by": None, "fingerprint": "\ud800", "model": None}
    part = OpenPart(digests=Digests("now", "before"))
    for number, (row_id, _) in enumerate(STORED):
        part.rows |= {2 * number: (row_id, ""), 2 * number + 1: (row_id, "1 2")}
        part.outcomes |= {2 * number: np.ones(2), 2 * number + 1: ItemError(0, "CODE\ud800", row_id)}
    with RunFolder(out) as folder:
        folder.parts.write(0, part.closed("float32"), part.digests)
        made = Made(2 * len(STORED), 4096, about | {"dim": 2, "dtype": "float32"})
        publish(folder, format_of(out), made, is_retry=False)


@pytest.mark.parametrize("suffix", ["parquet", "npy"])
def test_what_is_stored(tmp_path, suffix):
    """Every id is read again as it was; in .ids.txt alone its line breaks are spaces."""
    out = tmp_path / f"o.{suffix}"
    published(out)
    expected = [stored for _, stored in STORED]
    ids = [row_id for chunk, _ in format_of(out).read(out) for row_id in chunk]
    listed = list(read_failures(out.with_name(f"{out.name}.failed.csv")))

    assert ids == (expected if suffix == "parquet" else [" ".join(each.splitlines()) for each in expected])
    assert [failure.id for failure in listed] == expected
    assert [failure.message for failure in listed] == expected
    assert {(failure.code, failure.stamp) for failure in listed} == {(r"CODE\ud800", "1 2")}


def test_long_ids(tmp_path):
    """An id may be of any length, whatever reads a table meanwhile allows."""
    path = tmp_path / "failed.csv"
    failures = [Failure(row, str(row) * 200_000, "CODE", "") for row in range(3)]
    with FailureWriter(path) as writer:
        for failure in failures:
            writer.write(failure)
    read = []
    for failure in read_failures(path):
        read.append(failure)
        csv.field_size_limit(100)

    assert read == failures
