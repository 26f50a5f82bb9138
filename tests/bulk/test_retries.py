"""A retry ends as one undisturbed run would have, whatever ended it and whatever it meets there."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from embedding.client.bulk.errors import BulkError
from embedding.client.bulk.folder import RunFolder
from embedding.client.errors import Unreachable
from tests.bulk.stand_in import StandIn, killed_at, run, table


TEXTS = [f"text {number}." for number in range(10)]
BAD = (" 0.", " 2.", " 4.", " 6.", " 7.", " 9.")
STILL_BAD = (" 2.", " 6.", " 9.")


@pytest.fixture
def source(tmp_path):
    """Return a list of 10 texts."""
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS) + "\n")
    return path


def embed(out, source, bad=(), **more):
    """Embed *source* in parts of 3 rows; rows with a word of *bad* fail."""
    return run(out, source, backend=StandIn(failing=bad), part_rows=3, **more)


def files(folder, out):
    """Return all files in *folder* that belong to *out*, by name; None of its folder of parts."""
    mine = [path for path in folder.iterdir() if path.name.startswith(out.stem)]
    return {path.name: path.read_bytes() if path.is_file() else None for path in mine}


@pytest.mark.parametrize("suffix", ["parquet", "npy"])
def test_killed_twice(tmp_path, source, suffix):
    """Two retries in a row, each killed before some change of names, leave what undisturbed ones leave."""
    clean = tmp_path / f"o.{suffix}"
    embed(clean, source, BAD)
    begun = files(tmp_path, clean)
    embed(clean, source, STILL_BAD, is_retry=True)
    mended = files(tmp_path, clean)
    embed(clean, source, is_retry=True)
    whole = files(tmp_path, clean)
    for before, bad, after in ((begun, STILL_BAD, mended), (mended, (), whole)):
        step, died = 1, True
        while died:
            folder = tmp_path / "killed"
            folder.mkdir()
            for name, data in before.items():
                (folder / name).write_bytes(data)
            out = folder / clean.name
            died = killed_at(step, lambda: embed(out, source, bad, is_retry=True))  # noqa: B023
            if files(folder, out) != after:
                embed(out, source, bad, is_retry=True)
            assert files(folder, out) == after, step
            shutil.rmtree(folder)
            step += 1
        assert step > 10


def test_killed_while_it_drops_what_was_begun(tmp_path, monkeypatch):
    """What says which run the parts are of goes last, so that they are never taken for another's."""
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: iter(sorted(listed(folder), reverse=True)))
    step, died = 1, True
    while died:
        folder = RunFolder(tmp_path / f"{step}.npy")
        folder.path.mkdir()
        folder.write_run({"identity": {}, "restart": False, "retry": False, "of": None, "made_by": None})
        folder.parts.path(0).touch()
        folder.final().joinpath("x").touch()
        died = killed_at(step, folder.clear)
        assert folder.run() is not None or not folder.parts.numbers()
        step += 1

    assert (step, folder.run()) == (6, None)


def test_parts_of_no_run(tmp_path, source):
    """Parts beside which nothing says of what run they are do not count."""
    out = tmp_path / "o.parquet"
    gone = StandIn(ends_after=10, fault=Unreachable("gone"))
    with pytest.raises(Unreachable):
        run(out, source, backend=gone, part_rows=3)
    part = RunFolder(out).parts.path(0)
    data = part.read_bytes()
    shutil.rmtree(part.parent)
    embed(out, source, BAD)
    part.parent.mkdir()
    part.write_bytes(data)
    embed(out, source, is_retry=True)

    assert table(out)[0] == TEXTS


def other_output(out, source):
    """Put another output of the same order, with its own list, in the place of *out*."""
    other = out.parent / "other" / out.name
    other.parent.mkdir()
    embed(other, source, STILL_BAD)
    for path in other.parent.iterdir():
        path.replace(out.parent / path.name)


@pytest.mark.parametrize(
    ("disturb", "told"),
    [
        (other_output, "o.parquet is not what this retry was begun with: put that back, or --restart"),
        (lambda out, _: out.unlink(), "o.parquet is not what this retry was begun with"),
        (lambda out, _: listed(out).unlink(), "o.parquet.failed.csv is not there, which lists what failed"),
        (
            lambda out, _: listed(out).write_text(listed(out).read_text().replace("\n9,", "\n8,")),
            "o.parquet.failed.csv was changed since the output was written",
        ),
    ],
)
def test_begun_with_another_output(tmp_path, source, disturb, told):
    """A retry goes on only beside the output, and the list, that it was begun with."""
    out = tmp_path / "o.parquet"
    embed(out, source, BAD)
    gone = StandIn(ends_after=6, fault=Unreachable("gone"))
    with pytest.raises(Unreachable):
        run(out, source, backend=gone, part_rows=3, is_retry=True)
    disturb(out, source)
    with pytest.raises(BulkError) as refusal:
        embed(out, source, is_retry=True)

    assert told in str(refusal.value)


def listed(out):
    """Return the list of failed items of *out*."""
    return out.with_name(f"{out.name}.failed.csv")


def lines(path, keep):
    """Keep so many of the lines of *path*, the last again if there are not as many."""
    have = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*have, *have[-1:]][:keep]))


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        ("npy", lambda out: np.save(out, np.load(out)[:-1])),
        ("npy", lambda out: np.save(out, np.vstack([np.load(out), np.load(out)]))),
        ("npy", lambda out: out.write_bytes(b"")),
        ("npy", lambda out: out.write_bytes(out.read_bytes()[:-1])),
        ("npy", lambda out: lines(out.with_suffix(".ids.txt"), 3)),
        ("npy", lambda out: lines(out.with_suffix(".ids.txt"), 5)),
        ("npy", lambda out: out.with_suffix(".ids.txt").unlink()),
        ("npy", lambda out: out.with_suffix(".ids.txt").write_bytes(b"\xff\n" * 4)),
        ("parquet", lambda out: out.write_bytes(out.read_bytes()[:4] + bytes(90) + out.read_bytes()[94:])),
    ],
)
def test_output_without_all_its_rows(tmp_path, source, suffix, damage):
    """An output that is damaged, or has lost rows, is not retried into one with wrong places."""
    out = tmp_path / f"o.{suffix}"
    embed(out, source, BAD)
    damage(out)
    with pytest.raises(BulkError, match=rf"o.{suffix} has not the rows that it was made with: --restart"):
        embed(out, source, is_retry=True)


def test_two_outputs_of_one_stem(tmp_path, source):
    """Each output has a list of failed items of its own, and a retry of one leaves the other as it is."""
    one, other = tmp_path / "o.parquet", tmp_path / "o.npy"
    embed(one, source, BAD)
    embed(other, source, STILL_BAD)
    before = listed(other).read_bytes()
    embed(one, source, is_retry=True)

    assert not listed(one).exists()
    assert listed(other).read_bytes() == before
    with listed(other).open(newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == ["text 2.", "text 6.", "text 9."]
