"""Odd names and things that are no files neither stop a source nor hold it up; what is to blame is named."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext

import pytest

from embedding.client.bulk import rows as bulk_rows
from embedding.client.bulk.errors import BulkError
from embedding.client.bulk.rows import Row
from embedding.client.bulk.sources import Reading, check, count_rows, rows_of
from embedding.client.bulk.walk import Walk
from tests.bulk.pictures import picture
from tests.bulk.running import environment


ODD = os.fsdecode(b"\xff\xfe.png")


class NothingDone:
    """No part is written."""

    def digests(self, _part):
        return None

    def count(self):
        return 0


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def digest_of(rows):
    """Return the digest that a walk over *rows* makes."""
    walk = Walk(rows, NothingDone(), 3, 2, 1 << 20)
    list(walk)
    return walk.digests.now


def test_a_name_that_is_not_utf8(here):
    """It is a row like others, in a digest of its own, and its picture can be read."""
    for name in ("a.png", ODD):
        (here / name).write_bytes(picture(1))
    rows = list(rows_of(["."], Reading()))

    assert [row.id for row in rows] == ["./a.png", f"./{ODD}"]
    assert rows[1].picture() == picture(1)
    assert rows[1].wire_bytes() > 0
    (here / ODD).rename(here / os.fsdecode(b"\xff\xfd.png"))
    assert digest_of(rows_of(["."], Reading())) != digest_of(rows)


def test_a_digest_is_of_the_bytes_of_a_name():
    """A name in UTF-8 and one that is not are told apart by their own bytes."""
    part = hashlib.sha256()
    for piece in (b"\xff\xfe.png", b"text", "é".encode(), b""):
        part.update(b"%d:%b" % (len(piece), piece))

    assert digest_of([Row(ODD, "text", "é")]) == hashlib.sha256(part.hexdigest().encode()).hexdigest()


def fill_with_what_is_no_picture(folder):
    """Put in *folder* what only a name makes a picture; return what is told of each, in order."""
    (folder / "a.jpg").write_bytes(b"")
    (folder / "b.jpg").symlink_to("/dev/zero")
    (folder / "c.jpg").symlink_to("nowhere")
    (folder / "d.jpg").symlink_to("d.jpg")
    os.mkfifo(folder / "e.jpg")
    (folder / "f.jpg").write_bytes(b"x")
    os.truncate(folder / "f.jpg", 5 << 30)
    (folder / "g").mkdir()
    (folder / "g.jpg").symlink_to("g")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind("h.jpg")  # a whole path may be too long for a socket
    return [
        "it is empty",
        "it is empty, or no regular file",
        "No such file",
        "symbolic links",
        "Illegal seek",
        "its 5,368,709,120 bytes are too many for any worker",
        "Is a directory",
        "No such device",
    ]


@pytest.mark.parametrize("source", [".", "*.jpg", "**"])
def test_what_is_no_picture(here, source):
    """Each is a row that fails by itself: nothing blocks, nothing large is read, nothing ends the walk."""
    told = fill_with_what_is_no_picture(here)
    rows = [row for row in rows_of([source], Reading()) if row.kind == "file"]
    if source != ".":
        told = [reason for reason in told if reason != "Is a directory"]

    assert len(rows) == len(told) == count_rows([source], Reading())
    for row, reason in zip(rows, told, strict=True):
        with pytest.raises(OSError, match=reason):
            row.picture()


@pytest.mark.parametrize(("more", "is_read"), [(-1, True), (0, True), (1, False)])
def test_size_of_a_picture(here, more, is_read, monkeypatch):
    """A picture of the most bytes that a worker may take is read, one of a byte more is not."""
    monkeypatch.setattr(bulk_rows, "MAX_PICTURE_BYTES", 100)
    (here / "a.jpg").write_bytes(bytes(100 + more))
    (row,) = rows_of(["a.jpg"], Reading())
    if is_read:
        assert row.picture() == bytes(100 + more)
    else:
        with pytest.raises(OSError, match="its 101 bytes are too many"):
            row.picture()


def test_a_folder_that_cannot_be_listed(here, monkeypatch):
    """It ends the walk and is named, since what is in it is not known."""
    (here / "p" / "inner").mkdir(parents=True)
    listed = os.scandir

    def scandir(folder):
        if folder.endswith("inner"):
            raise PermissionError(13, "Permission denied", folder)
        return listed(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(BulkError) as refusal:
        list(rows_of(["p"], Reading()))

    assert str(refusal.value) == "SOURCE p cannot be read: p/inner: Permission denied"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("pipe.txt", "SOURCE pipe.txt is no regular file, and is read more than once; - reads stdin"),
        ("*.txt", "SOURCE pipe.txt is no regular file"),
        ("x" * 300, f"SOURCE {'x' * 300} cannot be read: File name too long"),
        (
            "set [1]/*.jpg",
            "SOURCE set [1]/*.jpg: no file has such a name; a [ that stands in a name is written [[]",
        ),
        ("other/*.jpg", "SOURCE other/*.jpg: no file has such a name"),
    ],
)
def test_sources_that_are_none(here, source, told):
    """A pipe in the place of a list is not waited for, and brackets in a name are told of."""
    os.mkfifo(here / "pipe.txt")
    (here / "set [1]").mkdir()
    (here / "set [1]" / "a.jpg").write_bytes(b"x")
    with pytest.raises(BulkError) as refusal:
        check([source], Reading())

    assert str(refusal.value).startswith(told)
    assert [row.id for row in rows_of(["set [[]1]/*.jpg"], Reading())] == ["set [1]/a.jpg"]
    assert [row.id for row in rows_of(["set [1]"], Reading())] == ["set [1]/a.jpg"]


@pytest.mark.parametrize("content", [b"a\r\nb\r\n", b"\xef\xbb\xbfa\rb", b"a\n\r\n\n b \n"])
def test_line_ends_of_a_list(here, content):
    """A line ends in any of the three ways."""
    (here / "l.txt").write_bytes(content)

    assert [row.value for row in rows_of(["l.txt"], Reading())] == ["a", "b"]


@pytest.mark.parametrize("content", [b"a\nb\0c\n", b"a\n" + bytes([97]) * 100])
def test_lists_that_are_none(here, content, monkeypatch):
    """A null character, or a line without an end, is told by its number."""
    monkeypatch.setattr("embedding.client.bulk.sources.MAX_TEXT_CHARS", 50)
    (here / "l.txt").write_bytes(content)
    with pytest.raises(BulkError, match=r"SOURCE l\.txt, line 2: .*; a list is UTF-8 text, an item a line"):
        list(rows_of(["l.txt"], Reading()))


@pytest.mark.parametrize(("chars", "is_line"), [(48, True), (49, True), (50, False), (51, False)])
@pytest.mark.parametrize("name", ["l.txt", "l.csv"])
def test_length_of_a_line(here, name, chars, is_line, monkeypatch):
    """A line, its end included, has fewer characters than the bound."""
    for module in ("sources", "tables"):
        monkeypatch.setattr(f"embedding.client.bulk.{module}.MAX_TEXT_CHARS", 50)
    (here / name).write_text(f"t\n{'a' * (chars - 1)}\n")

    with nullcontext() if is_line else pytest.raises(BulkError, match=r"line 2"):
        assert "a" * (chars - 1) in [row.value for row in rows_of([name], Reading())]


@pytest.mark.parametrize(("value", "kind"), [("HTTPS://example.org/a.jpg", "url"), ("httpsx", "text")])
def test_scheme_of_a_url(here, value, kind):
    """A URL may begin in capitals."""
    (here / "l.txt").write_text(value)

    assert [row.kind for row in rows_of(["l.txt"], Reading())] == [kind]


def test_a_closed_stdin(monkeypatch):
    """It is told."""
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(BulkError, match="SOURCE -: stdin is closed"):
        list(rows_of(["-"], Reading()))


def test_interrupted_while_stdin_is_silent(here):
    """Ctrl-C ends a run that waits for a line of stdin, with what is told of any other."""
    reading, writing = os.pipe()
    command = [
        sys.executable,
        "-m",
        "embedding",
        "embed",
        "-",
        "--out",
        "v.npy",
        "--url",
        "http://127.0.0.1:9",
    ]
    process = subprocess.Popen(command, cwd=here, env=environment(), stdin=reading, stderr=subprocess.PIPE)
    try:
        until_s = time.monotonic() + 60
        while not (here / "v.npy.parts" / "run.json").exists() and time.monotonic() < until_s:
            time.sleep(0.02)
        time.sleep(0.3)  # it begins to read
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=30)[1]
    finally:
        process.kill()
        os.close(reading)
        os.close(writing)

    assert process.returncode == 130
    assert b"interrupted: run the same command to go on" in told
