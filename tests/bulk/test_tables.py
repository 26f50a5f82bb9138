"""A table gives a row for each of its rows, or is refused where it cannot be known which they are."""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedding.client.bulk import sources, tables
from embedding.client.bulk.errors import BulkError
from embedding.client.bulk.sources import Reading, count_rows, rows_of


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def values_of(name, **reading):
    """Return the ids and values of all rows."""
    return [(row.id, row.value) for row in rows_of([name], Reading(**reading))]


def prose(lines):
    """Return a cell of so many lines, in quotes."""
    return '"' + "\n".join(["a line, of prose", ""] * (lines // 2)) + '"'


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            'id,t\n1,a\n2,"stray\n3,b\n4,"legal"\n',
            "line 3: the row that begins there cannot be read in line 5",
        ),
        (
            'id,t\n1,"stray\n2,b\n',
            "line 2: the row that begins there cannot be read in line 3 (unexpected end",
        ),
        ('id,t\n1,"a" b\n', "line 2: the row that begins there cannot be read in line 2"),
        ('id,t\n1,"a \\"red\\" circle"\n', "line 2: the row that begins there cannot be read"),
        ('id,t,u\n1,"stray,u\n2,15"\n', "line 2: the row that begins there ends in line 3; a quote"),
        ('id,t\n1,"stray\n' + 31 * "2,b\n" + '3,15"\n', "line 2: the row that begins there ends in line 34"),
        (
            't\n"stray\n' + 1100 * "b\n" + '15"\n',
            "line 2: the row that begins there takes more than 1000 lines",
        ),
        ("id,t\n1,a circle, red\n", "line 2: 3 cells, and the header names 2; a cell that holds a comma"),
        ("t\na circle, red\n", "line 2: 2 cells, and the header names 1"),
        ("t\nb\na\0\n", "line 3: a null character; UTF-8 is needed, and this may be UTF-16"),
        ("t\nb\n" + 201 * "a", "line 3: the line is longer than 200 characters"),
        ('t\n"' + 190 * "a" + "\n" + 190 * "a" + '"\n', "line 2: the row that begins there cannot be read"),
    ],
)
def test_what_no_table_holds(here, content, told, monkeypatch):
    """A stray quote, a comma without quotes and a null character are told by the line of their row."""
    if "a" * 190 in content:
        monkeypatch.setattr(tables, "MAX_TEXT_CHARS", 200)
    (here / "t.csv").write_text(content)
    with pytest.raises(BulkError) as refusal:
        values_of("t.csv", column="t")

    assert str(refusal.value).startswith(f"SOURCE t.csv, {told}")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "values"),
    [
        ('id,t\n1,"a ""red""\ncircle"\n2,a 15" screen\n', ['a "red"\ncircle', 'a 15" screen']),
        ("id,t\r1,a\r2,b\r", ["a", "b"]),
        ("id,t\r\n1,a\r\n\r\n2,b\r\n", ["a", "b"]),
        ('\ufeff"id","t"\n1,a\n', ["a"]),
        ("id,t\n1,a,\n2,b, ,\n", ["a", "b"]),
        ("id,t\n1,a\fb\u2028c\n", ["a\fb\u2028c"]),
        (f"id,t\n1,{prose(998)}\n2,b\n", [prose(998).strip('"').strip(), "b"]),
        ("id,t,t2,t2\n1,a,b,c\n", ["a"]),
    ],
)
def test_what_a_table_may_hold(here, content, values):
    """Quotes within and around cells, line breaks of all kinds, empty cells behind the last column."""
    (here / "t.csv").write_bytes(content.encode())

    assert [value for _, value in values_of("t.csv", column="t")] == values
    assert count_rows(["t.csv"], Reading(column="t")) == len(values)


def test_columns_of_one_name(here):
    """Of two columns of one name neither is chosen, in either kind of table."""
    (here / "t.csv").write_text("t,t\na,b\n")
    pq.write_table(pa.table([pa.array(["a"]), pa.array(["b"])], names=["t", "t"]), here / "t.parquet")

    for name in ("t.csv", "t.parquet"):
        with pytest.raises(BulkError, match=f"--column t: {name} has 2 columns of this name"):
            values_of(name, column="t")


@pytest.mark.parametrize(
    ("ids", "known"),
    [
        (pa.array([1, None]), ["1", ""]),
        (pa.array([b"x", b"\xff"]), ["x", "\udcff"]),
        (pa.array(["x", "y"], pa.large_string()).dictionary_encode(), ["x", "y"]),
        (pa.array(["x", "y"], pa.string_view()), ["x", "y"]),
    ],
    ids=["numbers", "bytes", "dictionary", "views"],
)
def test_ids_of_parquet(here, ids, known):
    """An id is told as text, and none as an empty one."""
    pq.write_table(pa.table({"t": ["a", "b"], "i": ids}), here / "t.parquet")

    assert values_of("t.parquet", column="t", id_column="i") == list(zip(known, "ab", strict=True))
    assert values_of("t.parquet", column="t", id_column="t") == [("a", "a"), ("b", "b")]


def test_bytes_as_texts(here):
    """Asked for texts, bytes are read as UTF-8, and refused where they are none."""
    pq.write_table(pa.table({"t": [b"a", "é".encode()]}), here / "t.parquet")
    pq.write_table(pa.table({"t": [b"\xff"]}), here / "bad.parquet")

    assert values_of("t.parquet", how="text") == [("a", "a"), ("é", "é")]
    assert [value for _, value in values_of("t.parquet")] == [b"a", "é".encode()]
    with pytest.raises(BulkError, match=r"SOURCE bad\.parquet is not UTF-8 text"):
        values_of("bad.parquet", how="text")


def test_a_row_group_is_not_held(here):
    """Of pictures in a Parquet file some pages are in memory, however large their row group is."""
    pictures = [os.urandom(20_000) for _ in range(1000)]
    pq.write_table(pa.table({"jpeg": pictures}), here / "t.parquet", write_batch_size=16)
    before = pa.total_allocated_bytes()
    rows = rows_of(["t.parquet"], Reading())
    for picture in pictures[:500]:
        assert next(rows).value == picture

    assert pa.total_allocated_bytes() - before < 3_000_000


def test_a_glob_of_tables_is_counted_by_their_footers(here, monkeypatch):
    """Counting reads no rows of Parquet, however the files were named."""
    for name in ("a.parquet", "b.parquet"):
        pq.write_table(pa.table({"t": ["a", "b"]}), here / name)
    (here / "c.txt").write_text("a\n")
    monkeypatch.setattr(sources, "parquet_rows", None)

    assert count_rows(["*.parquet", "c.*"], Reading()) == 5


def test_a_damaged_page(here):
    """What the footer of a Parquet file does not tell is told in one line when it is read."""
    pq.write_table(pa.table({"t": [f"text {number}" for number in range(100)]}), here / "t.parquet")
    data = bytearray((here / "t.parquet").read_bytes())
    data[6:30] = bytes(range(100, 124))
    (here / "t.parquet").write_bytes(data)
    with pytest.raises(BulkError, match=r"SOURCE t\.parquet ") as refusal:
        values_of("t.parquet")

    assert "\n" not in str(refusal.value)
