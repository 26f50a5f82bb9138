"""Every kind of source gives its rows in a fixed order, and every bad one is told in a line."""

from __future__ import annotations

import io
import sys
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedding.client.bulk.errors import BulkError
from embedding.client.bulk.sources import Reading, check, count_rows, rows_of
from tests.bulk.pictures import fill_folder, fill_tar, picture


URLS = ["https://example.org/1.jpg", "http://example.org/2.png"]


def told(source, *more, **reading):
    """Return id, kind and value of every row."""
    return [
        (row.id, row.kind, row.value) for row in rows_of([str(source), *map(str, more)], Reading(**reading))
    ]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_folder(here):
    """A folder gives the pictures below it by the order of names; nothing hidden, nothing else."""
    for name in (
        "b/2.PNG",
        "b/1.jpg",
        "a.webp",
        "c.gif",
        "c/x.jpeg",
        ".h.jpg",
        ".git/z.png",
        "b/no.txt",
        "d.bmp",
    ):
        path = here / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")

    names = ["a.webp", "b/1.jpg", "b/2.PNG", "c/x.jpeg", "c.gif"]
    assert told("pictures") == [(f"pictures/{name}", "file", f"pictures/{name}") for name in names]


def test_folder_with_a_loop_of_links(here):
    """A link to a folder is not followed."""
    (here / "pictures").mkdir()
    (here / "pictures" / "1.png").write_bytes(b"x")
    (here / "pictures" / "again").symlink_to(here / "pictures")

    assert len(told("pictures")) == 1


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("p/*.png", ["p/1.png", "p/2.png"]),
        ("p/**/*.png", ["p/1.png", "p/2.png", "p/q/3.png"]),
        ("p/[2].*", ["p/2.png"]),
    ],
)
def test_glob(here, pattern, found):
    """A pattern that no shell has expanded gives its files by name."""
    for name in ("1.png", "2.png", "q/3.png"):
        path = here / "p" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")

    assert [row[0] for row in told(pattern)] == found


def test_glob_of_lists(here):
    """What a pattern finds may be of any kind."""
    (here / "1.txt").write_text("one\n")
    (here / "2.txt").write_text("two\n")

    assert [row[0] for row in told("*.txt")] == ["one", "two"]


@pytest.mark.parametrize(
    ("how", "kinds"),
    [("auto", ["url", "url", "text"]), ("image", ["url", "url", "file"]), ("text", ["text", "text", "text"])],
)
def test_list(here, how, kinds):
    """A line is a URL or a text; asked for images, a URL or a path; asked for texts, a text."""
    (here / "list.txt").write_bytes(
        "\ufeff".encode() + "\n\r\n".join([*URLS, "", " a red circle é "]).encode()
    )

    assert told("list.txt", how=how) == [
        (value, kind, value) for value, kind in zip([*URLS, "a red circle é"], kinds, strict=True)
    ]


def test_stdin(here, monkeypatch):
    """- reads lines of stdin."""
    (here / "lines").write_bytes(b"one\ntwo")
    with (here / "lines").open() as file:
        monkeypatch.setattr(sys, "stdin", file)

        assert told("-") == [("one", "text", "one"), ("two", "text", "two")]


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_csv(here, suffix):
    """A column of a table, with quotes and line breaks in its cells; an empty cell stays a row."""
    comma = "," if suffix == "csv" else "\t"
    rows = [["sku", "title"], ["7", '"a red\ncircle"'], ["8", ""], ["9"], ["10", URLS[0]]]
    (here / f"t.{suffix}").write_text("\n".join(comma.join(row) for row in rows))

    assert told(f"t.{suffix}", column="title", id_column="sku") == [
        ("7", "text", "a red\ncircle"),
        ("8", "empty", ""),
        ("9", "empty", ""),
        ("10", "url", URLS[0]),
    ]
    assert told(f"t.{suffix}", column="title")[0] == ("a red\ncircle", "text", "a red\ncircle")


def test_table_of_one_column(here):
    """The only column need not be named."""
    (here / "t.csv").write_text("text\none\ntwo\n")

    assert [row[0] for row in told("t.csv")] == ["one", "two"]


def test_parquet(here):
    """A column of texts, or of pictures in bytes; an id may be a number."""
    data = [picture(1), None]
    columns = {
        "n": [1, 2],
        "text": ["one", None],
        "jpeg": data,
        "kind": pa.array(["a", "b"]).dictionary_encode(),
    }
    pq.write_table(pa.table(columns), here / "t.parquet")

    assert told("t.parquet", column="text", id_column="n") == [("1", "text", "one"), ("2", "empty", "")]
    assert told("t.parquet", column="jpeg") == [
        ("t.parquet#0", "bytes", data[0]),
        ("t.parquet#1", "empty", ""),
    ]
    assert [row[0] for row in told("t.parquet", column="kind")] == ["a", "b"]
    assert count_rows(["t.parquet"], Reading(column="kind")) == 2


@pytest.mark.parametrize("how", ["auto", "image"])
def test_tar(here, how):
    """Each sample of a tar gives its picture, read where it lies in the archive."""
    fill_tar(here / "s.tar", range(4))
    rows = [*rows_of(["s.tar"], Reading(how))]

    assert [row.id for row in rows] == [f"s.tar/00000{n}.{'jpg' if n % 3 == 0 else 'png'}" for n in range(4)]
    assert [row.picture() for row in rows] == [picture(number) for number in range(4)]


def test_tar_of_texts(here):
    """Asked for texts, each sample of a tar gives its text."""
    fill_tar(here / "s.tar", range(2))

    assert told("s.tar", how="text") == [
        ("s.tar/000000.txt", "text", "picture 0"),
        ("s.tar/000001.txt", "text", "picture 1"),
    ]


def test_several_sources(here):
    """Several sources come one after the other, and can be counted."""
    fill_folder(here / "f", range(2))
    (here / "list.txt").write_text("a text\n")

    assert [row[1] for row in told("f", "list.txt", "f/000/000001.png")] == ["file", "file", "text", "file"]
    assert count_rows(["f", "list.txt"], Reading()) == 3


def test_memory_of_a_tar_is_flat(here):
    """The headers of an archive are not kept."""
    with tarfile.open(here / "s.tar", "w") as archive:
        for number in range(3000):
            archive.addfile(tarfile.TarInfo(f"{number}.png"))
    rows = rows_of(["s.tar"], Reading())
    for _ in range(2000):
        next(rows)
    reading = rows.gi_yieldfrom.gi_frame.f_locals["members"]

    assert len(reading.gi_frame.f_locals["archive"].members) < 3


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_unusual_headers(here, kind):
    """Long and foreign names, sizes and times of every kind, links and folders are read as by tarfile."""
    names = ["a.png", "d" * 90 + "/" + "e" * 60 + ".png", "é.png", "f/g.png", "h.png"]
    names += [] if kind == tarfile.USTAR_FORMAT else ["l" * 300 + ".png"]
    with tarfile.open(here / "s.tar", "w", format=kind) as archive:
        for number, name in enumerate(names):
            header = tarfile.TarInfo(name)
            header.size, header.mtime = (
                (number + 1) * 300,
                number + (0.5 if kind == tarfile.PAX_FORMAT else 0),
            )
            archive.addfile(header, io.BytesIO(bytes([number]) * header.size))
            for type_ in (tarfile.DIRTYPE, tarfile.SYMTYPE):
                header = tarfile.TarInfo(f"other{number}.png")
                header.type, header.linkname = type_, "a.png"
                archive.addfile(header)
    with tarfile.open(here / "s.tar") as archive:
        known = [member for member in archive.getmembers() if member.isreg()]
    rows = [*rows_of(["s.tar"], Reading())]

    assert [(row.id, row.start, row.size_bytes) for row in rows] == [
        (f"s.tar/{member.name}", member.offset_data, member.size) for member in known
    ]
    assert [row.stamp.split()[1] for row in rows] == [str(member.mtime) for member in known]
    assert [row.picture() for row in rows] == [bytes([n]) * (n + 1) * 300 for n in range(len(names))]


def test_global_header_of_a_tar(here):
    """What a global header says counts for the members behind it."""
    with tarfile.open(here / "s.tar", "w", pax_headers={"mtime": "77"}) as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
    (row,) = rows_of(["s.tar"], Reading())

    assert row.stamp.split()[1] == "77.0"


def test_wrong_checksum_in_a_tar(here):
    """A header that was damaged ends the walk, and is not read as a row."""
    fill_tar(here / "s.tar", range(3))
    data = bytearray((here / "s.tar").read_bytes())
    second = data.index(b"000001.json")
    data[second + 108] ^= 1
    (here / "s.tar").write_bytes(data)
    with pytest.raises(BulkError, match="no whole tar archive"):
        list(rows_of(["s.tar"], Reading()))


def test_picture_that_became_shorter(here):
    """A file that was cut off since it was listed is an error of its own row."""
    fill_tar(here / "s.tar", range(1))
    (row,) = rows_of(["s.tar"], Reading())
    with (here / "s.tar").open("r+b") as file:
        file.truncate(1600)
    with pytest.raises(OSError, match="it is shorter than it was"):
        row.picture()


def write_bad_sources(folder):
    """Write one of each source that cannot be read."""
    (folder / "empty.txt").write_text("\n \n")
    (folder / "empty.csv").write_text("")
    (folder / "header.csv").write_text("text\n")
    (folder / "two.csv").write_text("a,b\n1,2\n")
    (folder / "latin.txt").write_bytes(b"caf\xe9\n")
    (folder / "latin.csv").write_bytes(b"text\ncaf\xe9\n")
    (folder / "broken.parquet").write_bytes(b"PAR1 no more")
    (folder / "broken.tar").write_bytes(b"x" * 2000)
    (folder / "notes.docx").write_bytes(b"x")
    (folder / "folder").mkdir()
    (folder / "folder" / "notes.docx").write_bytes(b"x")
    pq.write_table(pa.table({"n": [1], "m": [2.5]}), folder / "numbers.parquet")
    fill_tar(folder / "s.tar", range(3))
    (folder / "cut.tar").write_bytes((folder / "s.tar").read_bytes()[:600])


@pytest.mark.parametrize(
    ("source", "reading", "message"),
    [
        ("nowhere", {}, "SOURCE nowhere is not there"),
        ("nowhere/*.jpg", {}, "SOURCE nowhere/*.jpg: no file has such a name"),
        ("https://example.org/a.jpg", {}, "SOURCE is a URL: write URLs into a .txt file, one a line"),
        ("notes.docx", {}, "SOURCE notes.docx is of no known kind: give a folder, a glob"),
        (
            "folder",
            {},
            "SOURCE folder: nothing in it to embed; in a folder, files are looked for that end in .gif",
        ),
        ("empty.txt", {}, "SOURCE empty.txt: nothing in it to embed"),
        ("empty.csv", {}, "--column is needed for empty.csv, which has none"),
        ("header.csv", {}, "SOURCE header.csv: nothing in it to embed"),
        ("two.csv", {}, "--column is needed for two.csv, which has a, b"),
        ("two.csv", {"column": "c"}, "--column c: two.csv has no such column; it has a, b"),
        (
            "two.csv",
            {"column": "a", "id_column": "id"},
            "--id-column id: two.csv has no such column; it has a, b",
        ),
        ("numbers.parquet", {"column": "x"}, "--column x: numbers.parquet has no such column; it has n, m"),
        (
            "numbers.parquet",
            {"column": "m"},
            "--column m of numbers.parquet is double; texts, URLs or pictures",
        ),
        ("latin.txt", {}, "SOURCE latin.txt is not UTF-8 text"),
        ("latin.csv", {}, "SOURCE latin.csv is not UTF-8 text"),
        ("broken.parquet", {}, "SOURCE broken.parquet is no whole Parquet file"),
        ("broken.tar", {}, "SOURCE broken.tar is no whole tar archive"),
        ("cut.tar", {}, "SOURCE cut.tar is no whole tar archive"),
    ],
)
def test_bad_sources(here, source, reading, message):
    """What cannot be read is told before anything is sent: what, where, and what there is instead."""
    write_bad_sources(here)
    with pytest.raises(BulkError) as refusal:
        check([source], Reading(**reading))

    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)


def test_unreadable_list(here):
    """A folder in the place of a list is told as what it is, and stdin counts once."""
    (here / "list.txt").mkdir()
    with pytest.raises(BulkError, match=r"SOURCE list.txt: nothing in it to embed"):
        check(["list.txt"], Reading())
    with pytest.raises(BulkError, match="SOURCE - is given twice"):
        check(["-", "-"], Reading())
