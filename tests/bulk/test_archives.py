"""An archive is read whole or refused, whatever its headers hold and wherever it was cut off."""

from __future__ import annotations

import io
import tarfile

import pytest

from embedding.client.bulk import tar
from embedding.client.bulk.errors import BulkError
from embedding.client.bulk.sources import Reading, rows_of


LONG = "d" * 90 + "/" + "e" * 90


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_tar(members, **options):
    """Write s.tar of *members*, whose contents are told by their names."""
    with tarfile.open("s.tar", "w", **options) as archive:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))


def told(how="auto"):
    """Return id, kind, value and place of every row."""
    rows = rows_of(["s.tar"], Reading(how))
    return [(row.id, row.kind, row.value, row.start, row.size_bytes) for row in rows]


@pytest.mark.parametrize("how", ["image", "text"])
@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_cut_off_anywhere(here, kind, how):
    """An archive that ends before its zeros is refused, also where it ends between two members."""
    write_tar({"1.png": b"x" * 700, f"{LONG}.txt": b"a text", "2.png": b"y"}, format=kind)
    data = (here / "s.tar").read_bytes()
    end = len(data.rstrip(b"\0")) // 512 * 512 + 512
    whole = told(how)
    for cut in range(0, end + 1, 256):
        (here / "s.tar").write_bytes(data[:cut])
        with pytest.raises(BulkError, match=r"SOURCE s\.tar is no whole tar archive"):
            told(how)
    (here / "s.tar").write_bytes(data[: end + 512])

    assert told(how) == whole


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["é.png", f"{LONG}é.png"])
def test_names_in_another_encoding(here, kind, name):
    """A name in Latin-1 is kept by its bytes, in headers of every kind."""
    if kind == tarfile.USTAR_FORMAT:
        name = name[-40:]
    named = name if kind == tarfile.PAX_FORMAT else name.replace("é", "\udce9")  # pax headers are UTF-8
    write_tar({name: b"x", "z.png": b"y"}, format=kind, encoding="latin-1")

    assert [row[0] for row in told()] == [f"s.tar/{named}", "s.tar/z.png"]


@pytest.mark.parametrize(
    ("content", "kind", "value"),
    [(b" a circle\n", "text", "a circle"), (b"", "empty", ""), (b"\n", "empty", "")],
)
def test_texts(here, content, kind, value):
    """An empty text is an empty row."""
    write_tar({"1.txt": content})

    assert [row[:3] for row in told()] == [("s.tar/1.txt", kind, value)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"caf\xe9", r"1\.txt is not UTF-8 text"), (b"a" * 51, r"1\.txt is too long for a text")],
)
def test_texts_that_are_none(here, content, reason, monkeypatch):
    """The member that is to blame is named."""
    monkeypatch.setattr(tar, "MAX_TEXT_CHARS", 50)
    write_tar({"0.txt": b"a text", "1.txt": content})
    with pytest.raises(BulkError, match=rf"SOURCE s\.tar: {reason}"):
        told()


def test_a_member_in_pieces(here):
    """What does not lie in one piece is refused, and not read as what lies there."""
    with tarfile.open("s.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        header = tarfile.TarInfo("GNUSparseFile.0/a.png")
        header.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        header.pax_headers |= {"GNU.sparse.name": "a.png", "GNU.sparse.realsize": "700"}
        content = b"1\n600\n100\n".ljust(512, b"\0") + b"x" * 100
        header.size = len(content)
        archive.addfile(header, io.BytesIO(content))
    with pytest.raises(BulkError, match=r"a\.png lies in pieces"):
        told()


def test_keys(here):
    """A key ends at the first dot of a name; members of one key that stand apart are samples of their own."""
    members = ["a.b/1.seg.png", "a.b/1.png", "a.b/1.txt", "2.txt", "a.b/1.jpg", ".x.png"]
    write_tar(dict.fromkeys(members, b"x"))

    assert [row[0] for row in told()] == [
        "s.tar/a.b/1.seg.png",
        "s.tar/2.txt",
        "s.tar/a.b/1.jpg",
        "s.tar/.x.png",
    ]
