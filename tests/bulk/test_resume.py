"""A run goes on after any end of it, as if nothing had happened; what must not be mixed never is."""

from __future__ import annotations

import csv
import errno
import json
import multiprocessing
import os
import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from embedding.client.bulk.errors import BulkError
from embedding.client.bulk.folder import Model, RunFolder
from embedding.client.errors import Unreachable
from tests.bulk.stand_in import DIM, StandIn, killed_at, run, table


TEXTS = [f"text {number}" for number in range(23)]


@pytest.fixture
def source(tmp_path):
    """Return a list of 23 texts."""
    return write(tmp_path / "texts.txt", TEXTS)


def write(path, lines):
    """Write *lines*; return the path."""
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def failures(out):
    """Return the rows of the list of failed items beside *out*."""
    with out.with_name(f"{out.name}.failed.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def whole(tmp_path, source):
    """Return ids and vectors of an undisturbed run in which two rows fail."""
    run(tmp_path / "whole.parquet", source, backend=StandIn(failing=("7", "t 20")), part_rows=5)
    return table(tmp_path / "whole.parquet")


def same(one, other):
    """Return whether ids and vectors are equal, row for row."""
    return one[0] == other[0] and np.array_equal(one[1], other[1])


def left_behind(folder):
    """Return what a finished run should have taken away."""
    return [path.name for path in folder.iterdir() if ".parts" in path.name or path.suffix == ".tmp"]


@pytest.mark.parametrize("suffix", ["parquet", "npy"])
def test_killed_before_any_change_of_names(tmp_path, source, suffix):
    """Killed before any rename, removal or new folder, the cleanup included, the next run completes it."""
    bad = ("7", "t 20")
    clean = tmp_path / f"clean.{suffix}"
    run(clean, source, backend=StandIn(failing=bad), part_rows=5)
    step, died = 1, True
    while died:
        folder = tmp_path / f"killed-{step}"
        folder.mkdir()
        out = folder / f"clean.{suffix}"
        died = killed_at(step, lambda: run(out, source, backend=StandIn(failing=bad), part_rows=5))  # noqa: B023
        run(out, source, backend=StandIn(failing=bad), part_rows=5)
        for path in tmp_path.glob("clean.*"):
            if path.is_file():
                assert (folder / path.name).read_bytes() == path.read_bytes(), (step, path.name)
        assert left_behind(folder) == []
        shutil.rmtree(folder)
        step += 1

    assert step > 15


@pytest.mark.parametrize("ends_after", [1, 4, 5, 6, 11, 22, 23])
def test_ended_by_a_fault(tmp_path, source, whole, ends_after):
    """An endpoint that goes away ends the run; the next asks only for parts that are not there."""
    out = tmp_path / "out.parquet"
    gone = StandIn(failing=("7", "t 20"), ends_after=ends_after, fault=Unreachable("gone"))
    with pytest.raises(Unreachable):
        run(out, source, backend=gone, part_rows=5)
    done = set(RunFolder(out).parts.numbers())
    _, backend = run(out, source, backend=StandIn(failing=("7", "t 20")), part_rows=5)

    assert same(table(out), whole)
    assert sorted(backend.seen) == sorted(text for i, text in enumerate(TEXTS) if i // 5 not in done)


@pytest.mark.parametrize(
    "damage", [lambda _: b"", lambda data: data[:-9], lambda data: data[: len(data) // 2]]
)
def test_torn_part(tmp_path, source, whole, damage):
    """A part that was cut off is made again."""
    out = tmp_path / "out.parquet"
    stopped(out, source)
    path = RunFolder(out).parts.path(0)
    path.write_bytes(damage(path.read_bytes()))
    _, backend = run(out, source, backend=StandIn(failing=("7", "t 20")), part_rows=5)

    assert set(TEXTS[:5]) <= set(backend.seen)
    assert same(table(out), whole)


def test_part_damaged_within(tmp_path, source, whole):
    """A part whose damage shows only when it is read is dropped, and the next run makes it again."""
    out = tmp_path / "out.parquet"
    stopped(out, source)
    path = RunFolder(out).parts.path(0)
    data = bytearray(path.read_bytes())
    data[4:200] = bytes(196)
    path.write_bytes(data)
    with pytest.raises(BulkError, match="part 0 of this run is damaged, and was dropped"):
        run(out, source, backend=StandIn(failing=("7", "t 20")), part_rows=5)
    run(out, source, backend=StandIn(failing=("7", "t 20")), part_rows=5)

    assert same(table(out), whole)


def stopped(out, source, after=16, **more):
    """Begin a run that ends after some rows; again, if that was before its first part was whole."""
    for _ in range(10):
        backend = StandIn(failing=("7", "t 20"), ends_after=after, fault=Unreachable("gone"), **more)
        with pytest.raises(Unreachable):
            run(out, source, backend=backend, part_rows=5)
        if 0 in RunFolder(out).parts.numbers():
            return
    pytest.fail("no run came as far as its first part")


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        (["another", *TEXTS[1:]], "among rows 0 to 4"),
        (["first", *TEXTS], "among rows 0 to 4"),
        (TEXTS[:4], "among rows 0 to 4"),
        ([*TEXTS[:1], *TEXTS[2:]], "among rows 0 to 4"),
    ],
)
def test_source_changed(tmp_path, source, lines, where):
    """Rows changed, added or dropped among those that are done are refused; --restart begins anew."""
    out = tmp_path / "out.parquet"
    stopped(out, source)
    write(source, lines)
    with pytest.raises(BulkError, match=rf"source has changed since this run began \({where}\): --restart"):
        run(out, source, part_rows=5)
    run(out, source, part_rows=5, is_restart=True)

    assert table(out)[0] == lines


def test_source_grew_where_nothing_is_done(tmp_path, source, whole):
    """What is added behind the parts that are done is embedded."""
    out = tmp_path / "out.parquet"
    stopped(out, source, after=7)
    write(source, [*TEXTS, "one more"])
    run(out, source, backend=StandIn(failing=("7", "t 20")), part_rows=5)

    assert table(out)[0] == [*whole[0], "one more"]


def test_source_shrank_to_whole_parts(tmp_path, source):
    """A source that ends before parts that are done is refused."""
    out = tmp_path / "out.parquet"
    stopped(out, source, after=22)
    write(source, TEXTS[:5])
    with pytest.raises(BulkError, match="it has 5 rows, fewer than before"):
        run(out, source, part_rows=5)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"dtype": "float16"}, "dtype 'float32', now 'float16'"),
        ({"part_rows": 6}, "part_rows 5, now 6"),
        ({"how": "text"}, "as 'auto', now 'text'"),
        ({"column": "a"}, "column None, now 'a'"),
    ],
)
def test_other_options(tmp_path, source, other, told):
    """Another option is refused, while it runs and when it is done, and the message says which."""
    out = tmp_path / "out.parquet"
    stopped(out, source)
    for state in ("a run was begun", f"{out} was made"):
        with pytest.raises(BulkError) as refusal:
            run(out, source, **{"part_rows": 5, **other})
        assert str(refusal.value).startswith(f"{state} otherwise: {told}: --restart")
        run(out, source, part_rows=5)


@pytest.mark.parametrize(
    "other", [{"dtype": "float16"}, {"part_rows": 6}, {"backend": StandIn(fingerprint="two")}]
)
def test_other_options_before_any_part(tmp_path, source, other):
    """A run that ended before its first part holds nobody to its options, nor to its model."""
    out = tmp_path / "out.parquet"
    gone = StandIn(ends_after=4, fault=Unreachable("gone"))
    with pytest.raises(Unreachable):
        run(out, source, backend=gone, part_rows=5)
    run(out, source, **{"part_rows": 5, **other})

    assert table(out)[0] == TEXTS


def test_other_source(tmp_path, source):
    """Another source into the same output is refused."""
    out = tmp_path / "out.parquet"
    stopped(out, source)
    other = write(tmp_path / "other.txt", TEXTS)
    with pytest.raises(BulkError, match=r"otherwise: sources .*texts.txt.*, now .*other.txt"):
        run(out, other, part_rows=5)


def test_other_fingerprint(tmp_path, source):
    """A model of another fingerprint is refused before any of its vectors is written."""
    out = tmp_path / "out.parquet"
    stopped(out, source)
    before = RunFolder(out).parts.numbers()
    with pytest.raises(BulkError, match="fingerprint two answers, and this output was begun with one: serve"):
        run(out, source, backend=StandIn(fingerprint="two"), part_rows=5)

    assert RunFolder(out).parts.numbers() == before


def test_fingerprint_that_changes_meanwhile(tmp_path, source):
    """A deployment that goes on under a run ends it."""

    class Changing(StandIn):
        async def embed(self, rows):
            answer = await super().embed(rows)
            return replace(answer, made_by=Model("two", None)) if rows[0].id == TEXTS[15] else answer

    with pytest.raises(
        BulkError, match=r"fingerprint (one|two) answers, and this output was begun with (one|two)"
    ):
        run(tmp_path / "out.parquet", source, backend=Changing(), part_rows=5)


def hold(out, held, over):
    """Hold the lock of *out* until told."""
    with RunFolder(out):
        held.set()
        over.wait(30)


def test_two_runs_at_once(tmp_path, source, whole):
    """A second run of one output is refused while the first holds it, and not once that was killed."""
    out = tmp_path / "out.parquet"
    stopped(out, source)
    context = multiprocessing.get_context("fork")
    held, over = context.Event(), context.Event()
    other = context.Process(target=hold, args=(out, held, over))
    other.start()
    held.wait(30)
    with pytest.raises(BulkError, match="another run is writing"):
        run(out, source, part_rows=5)
    os.kill(other.pid, 9)
    other.join()
    run(out, source, backend=StandIn(failing=("7", "t 20")), part_rows=5)

    assert same(table(out), whole)


@pytest.mark.parametrize(
    ("number", "told"),
    [(errno.ENOSPC, "no room left for"), (errno.EIO, "cannot be written: Input/output error")],
)
def test_disk_that_takes_no_more(tmp_path, source, monkeypatch, number, told):
    """A full or broken disk ends the run in a line, and the next goes on."""

    def full(_):
        raise OSError(number, os.strerror(number))

    out = tmp_path / "out.parquet"
    stopped(out, source)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BulkError, match=told):
        run(out, source, part_rows=5)
    monkeypatch.undo()
    run(out, source, backend=StandIn(failing=("7", "t 20")), part_rows=5)

    assert [failure["row"] for failure in failures(out)] == ["7", "17", "20"]


def test_done_is_done(tmp_path, source):
    """The same command after the end does nothing, and says how it stands."""
    out = tmp_path / "out.parquet"
    first, _ = run(out, source, backend=StandIn(failing=("7",)))
    result, backend = run(out, source)

    assert (backend.seen, result.rows, dict(result.failed)) == ([], 23, {"DECODE_ERROR": 2})
    assert first.about == result.about
    assert result.about["dim"] == DIM


def test_failed_items_are_listed(tmp_path, source):
    """Rows that failed are absent from the output, and listed with row, id, code, message and stamp."""
    out = tmp_path / "out.parquet"
    run(out, source, backend=StandIn(failing=("7", "t 20")), part_rows=5)

    assert [tuple(failure.values()) for failure in failures(out)] == [
        (str(row), f"text {row}", "DECODE_ERROR", "made to fail", "") for row in (7, 17, 20)
    ]
    assert table(out)[0] == [text for i, text in enumerate(TEXTS) if i not in (7, 17, 20)]


@pytest.mark.parametrize("suffix", ["parquet", "npy"])
def test_retry(tmp_path, source, suffix):
    """A retry asks for what failed alone; what fails again stays listed, and the order is the source's."""
    out, plain = tmp_path / f"out.{suffix}", tmp_path / f"plain.{suffix}"
    run(out, source, backend=StandIn(failing=("7", "t 20")), part_rows=5)
    _, backend = run(out, source, backend=StandIn(failing=("17",)), part_rows=5, is_retry=True)
    assert sorted(backend.seen) == ["text 17", "text 20", "text 7"]
    assert [failure["row"] for failure in failures(out)] == ["17"]
    result, _ = run(out, source, part_rows=5, is_retry=True)
    run(plain, source, part_rows=5)

    assert not result.failed
    assert out.read_bytes() == plain.read_bytes()
    assert not out.with_name(f"{out.name}.failed.csv").exists()


def test_retry_after_nothing_but_failures(tmp_path, source):
    """An output without one vector is completed as well."""
    out, plain = tmp_path / "out.parquet", tmp_path / "plain.parquet"
    result, _ = run(out, source, backend=StandIn(failing=("text",)), part_rows=5)
    assert (pq.read_metadata(out).num_rows, result.about["fingerprint"]) == (0, None)
    run(out, source, part_rows=5, is_retry=True)
    run(plain, source, part_rows=5)

    assert same(table(out), table(plain))


def test_retry_of_another_source_or_list(tmp_path, source):
    """A retry whose source or list of failures has changed is refused, and the output stays as it is."""
    out = tmp_path / "out.parquet"
    run(out, source, backend=StandIn(failing=("7",)), part_rows=5)
    before = out.read_bytes()
    listed = out.with_name("out.parquet.failed.csv")
    text = listed.read_text()
    listed.write_text(text.replace("17,text 17", "16,text 16"))
    with pytest.raises(BulkError, match="was changed since the output was written"):
        run(out, source, part_rows=5, is_retry=True)
    listed.write_text(text)
    write(source, [*TEXTS[:-1], "another"])
    with pytest.raises(BulkError, match="the source has changed"):
        run(out, source, part_rows=5, is_retry=True)

    assert out.read_bytes() == before


def test_retry_too_early(tmp_path, source):
    """There is nothing to retry before the output is there."""
    out = tmp_path / "out.parquet"
    with pytest.raises(BulkError, match="there is no output yet"):
        run(out, source, is_retry=True)
    assert not RunFolder(out).path.exists()
    stopped(out, source)
    with pytest.raises(BulkError, match="the run is not done yet"):
        run(out, source, part_rows=5, is_retry=True)


def test_file_of_somebody_else(tmp_path, source):
    """A file that no run made is never replaced unless --restart says so."""
    out = tmp_path / "out.parquet"
    out.write_text("mine")
    with pytest.raises(BulkError, match="is there, and not of such a run"):
        run(out, source)
    assert out.read_text() == "mine"
    run(out, source, is_restart=True)

    assert table(out)[0] == TEXTS


def test_what_an_output_says(tmp_path, source):
    """Model and fingerprint stand in the metadata of Parquet, and in the JSON file beside .npy."""
    for name in ("out.parquet", "out.npy"):
        run(tmp_path / name, source, dtype="float16")
    schema = pq.read_schema(tmp_path / "out.parquet")
    beside = json.loads((tmp_path / "out.json").read_text())
    vectors = np.load(tmp_path / "out.npy")

    assert (schema.metadata[b"fingerprint"], schema.metadata[b"model"]) == (b"one", b"stand-in")
    assert str(schema.field("vector").type) == f"fixed_size_list<element: halffloat>[{DIM}]"
    assert (beside["fingerprint"], beside["model"], beside["rows"]) == ("one", "stand-in", 23)
    assert (vectors.shape, vectors.dtype) == ((23, DIM), np.float16)
    assert (tmp_path / "out.ids.txt").read_text().splitlines() == TEXTS
    assert np.array_equal(vectors, table(tmp_path / "out.parquet")[1])
