"""What is there already is never mixed with, overwritten or passed off: output, source, files of others."""

from __future__ import annotations

import sys
from contextlib import nullcontext

import pytest

from embedding.client.bulk.errors import BulkError
from embedding.client.bulk.folder import RunFolder
from embedding.client.errors import Unreachable
from tests.bulk.pictures import picture
from tests.bulk.stand_in import StandIn, run, table


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in a folder that holds only a list of three texts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.txt").write_text("one\ntwo\nthree\n")
    return tmp_path


@pytest.mark.parametrize("failing", [(), ("two",)])
@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("one\ntwo\nthree\nfour\n", "it has 4 rows, and had 3"),
        ("one\ntwo\n", "it has 2 rows, and had 3"),
        ("one\ntwo\n3\n", "some of its rows are others"),
        ("two\none\nthree\n", "some of its rows are others"),
    ],
)
def test_source_that_changed_since(here, lines, told, failing):
    """A source that is another than the output was made of is told, and the output stays until --restart."""
    out = here / "o.parquet"
    run(out, "t.txt", backend=StandIn(failing=failing), part_rows=2)
    before = out.read_bytes()
    (here / "t.txt").write_text(lines)
    with pytest.raises(BulkError) as refusal:
        run(out, "t.txt", part_rows=2)
    assert str(refusal.value) == (
        f"the source has changed since {out} was made ({told}): --restart makes it anew, "
        "another --out keeps both"
    )
    assert out.read_bytes() == before
    assert not RunFolder(out).path.exists()
    run(out, "t.txt", part_rows=2, is_restart=True)
    _, backend = run(out, "t.txt", part_rows=2)

    assert table(out)[0] == lines.split()
    assert not backend.seen


def test_picture_that_changed_since(here):
    """A picture that was written again, or has come, makes the source of an output another."""
    (here / "f").mkdir()
    (here / "f" / "1.png").write_bytes(picture(1))
    run(here / "o.npy", "f")
    (here / "f" / "1.png").write_bytes(picture(2) + b"\0")
    with pytest.raises(BulkError, match="some of its rows are others"):
        run(here / "o.npy", "f")
    (here / "f" / "2.png").write_bytes(picture(2))
    with pytest.raises(BulkError, match="it has 2 rows, and had 1"):
        run(here / "o.npy", "f")


class TestPicturePutRight:
    """A picture that failed may be another one now: the source is held against what it was when it failed."""

    BROKEN = ("b.png", "d.png")

    @pytest.fixture
    def out(self, here):
        """Return an output of six pictures, a to f, of which two failed."""
        (here / "f").mkdir()
        for number, name in enumerate("abcdef"):
            (here / "f" / f"{name}.png").write_bytes(picture(number))
        out = here / "o.parquet"
        run(out, "f", backend=StandIn(failing=self.BROKEN), part_rows=2)
        return out

    def put_right(self, here, *names):
        for name in names:
            (here / "f" / f"{name}.png").write_bytes(picture(ord(name)) + b"longer than before")

    def whole(self, here):
        run(here / "whole.parquet", "f")
        return table(here / "whole.parquet")

    def test_retried(self, here, out):
        """A retry gives it its vector, and the output is that of the source as it is now."""
        self.put_right(here, "b", "d")
        result, backend = run(out, "f", is_retry=True, part_rows=2)
        again, idle = run(out, "f", part_rows=2)

        assert sorted(backend.seen) == ["f/b.png", "f/d.png"]
        assert (result.failed, again.failed, idle.seen) == ({}, {}, [])
        ids, vectors = self.whole(here)
        assert (table(out)[0], table(out)[1].tolist()) == (ids, vectors.tolist())

    def test_not_retried(self, here, out):
        """Without a retry the output stands as it is, and its failures are told."""
        self.put_right(here, "b")
        result, backend = run(out, "f", part_rows=2)

        assert (sum(result.failed.values()), backend.seen) == (2, [])

    def test_one_by_one(self, here, out):
        """One that fails once more may be put right once more; each retry holds on to what it made."""
        self.put_right(here, "b")
        run(out, "f", backend=StandIn(failing=("d.png",)), is_retry=True, part_rows=2)
        self.put_right(here, "d")
        run(out, "f", backend=StandIn(failing=("d.png",)), is_retry=True, part_rows=2)
        (here / "f" / "d.png").write_bytes(picture(99))
        run(out, "f", is_retry=True, part_rows=2)

        assert table(out)[1].tolist() == self.whole(here)[1].tolist()

    def test_put_right_while_a_retry_was_killed(self, here, out):
        """A retry goes on where another picture was put right meanwhile."""
        self.put_right(here, "b")
        gone = StandIn(ends_after=2, max_items=1, fault=Unreachable("gone"))
        with pytest.raises(Unreachable):
            run(out, "f", backend=gone, is_retry=True, part_rows=2)
        self.put_right(here, "d")
        run(out, "f", is_retry=True, part_rows=2)

        assert table(out)[1].tolist() == self.whole(here)[1].tolist()

    def test_changed_after_its_retry(self, here, out):
        """A picture that was changed after a killed retry gave it its vector is a changed source."""
        self.put_right(here, "b", "d")
        gone = StandIn(ends_after=2, max_items=1, fault=Unreachable("gone"))
        with pytest.raises(Unreachable):
            run(out, "f", backend=gone, is_retry=True, part_rows=2)
        assert RunFolder(out).parts.numbers() == [0]
        (here / "f" / "b.png").write_bytes(picture(99))
        run(out, "f", is_retry=True, part_rows=2)
        with pytest.raises(BulkError, match="some of its rows are others"):
            run(out, "f", part_rows=2)

    @pytest.mark.parametrize("is_retry", [True, False])
    def test_another_changed_too(self, here, out, is_retry):
        """A change of a picture that has its vector is refused before anything is embedded."""
        self.put_right(here, "b", "c")
        backend = StandIn()
        with pytest.raises(BulkError, match=r"the source has changed since .* \(some of its rows are others"):
            run(out, "f", backend=backend, is_retry=is_retry, part_rows=2)

        assert backend.seen == []
        assert not RunFolder(out).path.exists()

    def test_came_since(self, here):
        """A listed file that was not there is embedded by a retry once it is."""
        (here / "list.txt").write_text("1.png\n2.png\n")
        (here / "1.png").write_bytes(picture(1))
        run(here / "o.npy", "list.txt", how="image", backend=StandIn(failing=("2.png",)))
        (here / "2.png").write_bytes(picture(2))
        result, _ = run(here / "o.npy", "list.txt", how="image", is_retry=True)

        assert (result.rows, result.failed) == (2, {})


def test_retry_of_another_stdin(here, monkeypatch):
    """A retry that reads another source by stdin, which is known at its end, leaves nothing behind."""
    given = here / "given"
    for text, more, told in (
        ("one\ntwo\n", {"backend": StandIn(failing=("two",))}, None),
        ("one\n2\n", {"is_retry": True}, "some of its rows are others"),
        ("one\n", {"is_retry": True}, "it has 1 rows, and had 2"),
        ("one\ntwo\n", {"is_retry": True}, None),
    ):
        given.write_text(text)
        with given.open() as stdin, monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", stdin)
            with pytest.raises(BulkError, match=told) if told else nullcontext():
                run(here / "o.npy", "-", part_rows=1, **more)

    assert (here / "o.ids.txt").read_text() == "one\ntwo\n"


def test_stdin_that_changed_since(here, monkeypatch):
    """What comes by stdin is read to its end and compared as well."""
    given = here / "given"
    for text, told in (("one\n", None), ("one\n", None), ("two\n", "some of its rows are others")):
        given.write_text(text)
        with given.open() as stdin, monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", stdin)
            with pytest.raises(BulkError, match=told) if told else nullcontext():
                run(here / "o.npy", "-")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("o.npy", "mine"),
        ("o.json", "mine"),
        ("o.json", '{"fingerprint": "mine", "model": null}'),
        ("o.json", "[1]"),
        ("o.json", "3"),
        ("o.ids.txt", "mine"),
    ],
)
def test_files_of_somebody_else(here, name, content):
    """A file in the place of any of those that an output has is kept unless --restart says otherwise."""
    (here / name).write_text(content)
    with pytest.raises(BulkError, match=f"{name} is there, and not of such a run: give another --out, or"):
        run(here / "o.npy", "t.txt")
    assert (here / name).read_text() == content
    gone = StandIn(ends_after=3, fault=Unreachable("gone"))
    with pytest.raises(Unreachable):
        run(here / "o.npy", "t.txt", backend=gone, is_restart=True)
    run(here / "o.npy", "t.txt")

    assert (here / "o.ids.txt").read_text() == "one\ntwo\nthree\n"


def test_file_that_came_meanwhile(here):
    """A file of somebody else that has come since a run was begun is kept when the run goes on."""
    gone = StandIn(ends_after=3, fault=Unreachable("gone"))
    with pytest.raises(Unreachable):
        run(here / "o.npy", "t.txt", backend=gone)
    (here / "o.npy").write_text("mine")
    with pytest.raises(BulkError, match=r"o.npy is there, and not of such a run"):
        run(here / "o.npy", "t.txt")

    assert (here / "o.npy").read_text() == "mine"


@pytest.mark.parametrize("name", ["o.npy", "o.json", "o.ids.txt", "o.npy.failed.csv"])
def test_folders_in_the_place_of_files(here, name):
    """A folder in the place of a file is refused before anything is embedded, with --restart as well."""
    (here / name).mkdir()
    for more in ({}, {"is_restart": True}):
        with pytest.raises(BulkError, match=f"--out .*o.npy: .*{name} is a folder"):
            run(here / "o.npy", "t.txt", **more)


def test_output_is_deleted(here):
    """What is left of an output that was deleted stands in nobody's way."""
    run(here / "o.npy", "t.txt", backend=StandIn(failing=("two",)))
    (here / "o.npy").unlink()
    with pytest.raises(BulkError, match="there is no output yet"):
        run(here / "o.npy", "t.txt", is_retry=True)
    run(here / "o.npy", "t.txt")

    assert sorted(path.name for path in here.iterdir()) == ["o.ids.txt", "o.json", "o.npy", "t.txt"]


@pytest.mark.parametrize("name", ["h/v.parquet", "h/v.npy"])
@pytest.mark.parametrize("pattern", ["h/**", "h/*", "{here}/h/**", "link/**"])
def test_glob_that_finds_the_run(here, name, pattern):
    """A glob leaves out what the run itself writes, at its beginning, later, and when it is done."""
    (here / "h").mkdir()
    (here / "link").symlink_to("h")
    for number in range(3):
        (here / "h" / f"{number}.png").write_bytes(picture(number))
    source = pattern.format(here=here)
    gone = StandIn(failing=("1.png",), ends_after=3, fault=Unreachable("gone"), max_items=1)
    with pytest.raises(Unreachable):
        run(name, source, backend=gone, part_rows=1)
    result, _ = run(name, source, backend=StandIn(failing=("1.png",)), part_rows=1)
    again, backend = run(name, source, part_rows=1)

    assert result.rows == again.rows == 3
    assert (sum(again.failed.values()), backend.seen) == (1, [])


@pytest.mark.parametrize(
    ("source", "name"),
    [("v.parquet", "v.parquet"), ("v.ids.txt", "v.npy"), ("v.npy.failed.csv", "v.npy")],
)
def test_source_is_the_output(here, source, name):
    """A source that the run would write over is refused, with --restart as well."""
    (here / source).write_text("text\n1\n")
    with pytest.raises(BulkError, match=f"SOURCE {source} is what this run writes: give another --out"):
        run(here / name, source, is_restart=True)
    assert (here / source).read_text() == "text\n1\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", ""),
        ("run.json", "[]"),
        ("run.json", "{}"),
        ("ready", "{"),
        ("ready", "{}"),
        ("ready", "3"),
    ],
)
def test_damaged_folder(here, name, content):
    """What cannot be read of a run that was begun is told, and --restart gets past it."""
    with RunFolder(here / "o.npy") as folder:
        (folder.path / name).write_text(content)
    with pytest.raises(BulkError, match=f"o.npy.parts/{name} is damaged: --restart begins anew"):
        run(here / "o.npy", "t.txt")
    run(here / "o.npy", "t.txt", is_restart=True)

    assert (here / "o.ids.txt").read_text() == "one\ntwo\nthree\n"
