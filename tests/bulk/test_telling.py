"""What the command says and leaves with, however it ends and whoever has stopped to listen."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from embedding.__main__ import main
from embedding.client.bulk import command, progress, session
from embedding.client.bulk.errors import BulkError
from embedding.client.bulk.window import Window
from embedding.client.errors import ItemError
from tests.bulk.stand_in import StandIn, table


GO_ON = "run the same command to go on"
INTERRUPTED = f"interrupted: {GO_ON}; what is done is kept\n"


@pytest.fixture
def embed(tmp_path, monkeypatch):
    """Return what runs the command with a backend, on a list of nine texts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.txt").write_text("".join(f"text {number}\n" for number in range(9)))

    def embed(*arguments, backend=None, source="t.txt", others=()):
        monkeypatch.setattr(command, "_backend", lambda _: backend or StandIn())
        return main(["embed", source, *others, "--out", "o.parquet", "--part-rows", "2", *arguments])

    return embed


def interrupt(*_, **__):
    """Do what Ctrl-C does."""
    raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["check", "counter", "publish", "rows_of"])
def test_interrupted_anywhere(embed, monkeypatch, capsys, where):
    """Ctrl-C at any time ends in one line and status 130, and the same command completes the output."""
    with monkeypatch.context() as patch:
        patch.setattr(command if where == "counter" else session, where, interrupt)
        assert embed() == 130
    assert capsys.readouterr() == ("", INTERRUPTED)
    backend = StandIn()
    assert embed(backend=backend) == 0

    assert bool(backend.seen) is (where != "publish")
    assert len(table("o.parquet")[0]) == 9


@pytest.mark.parametrize(
    ("fault", "status", "told"),
    [
        (KeyboardInterrupt(), 130, INTERRUPTED),
        (BulkError(f"the disk is full: {GO_ON}"), 1, f"error: the disk is full: {GO_ON}\n"),
    ],
)
def test_how_to_go_on(embed, capsys, fault, status, told):
    """A run ends with how it goes on; one that was begun anew goes on without the flag that said so."""
    ending = {"ends_after": 1, "fault": fault}
    assert embed(backend=StandIn(**ending)) == status
    assert capsys.readouterr().err == told
    assert embed("--restart", backend=StandIn(**ending)) == status
    assert capsys.readouterr().err == told.replace("command", "command without --restart")
    assert embed() == 0


@pytest.mark.parametrize(
    ("name", "make", "told"),
    [
        ("o.parquet", os.mkdir, "error: --out o.parquet: o.parquet is a folder\n"),
        (
            "o.parquet.parts",
            lambda name: open(name, "x").close(),  # noqa: PTH123
            "error: o.parquet.parts is there, and no folder: move it, or give another --out\n",
        ),
    ],
)
def test_what_stands_in_the_way(embed, capsys, name, make, told):
    """What OUT or its folder cannot take the place of is told in a line."""
    make(name)
    assert embed() == 1
    assert capsys.readouterr().err == told


@pytest.mark.parametrize(("failing", "status"), [((), 0), (("text 3",), 3)])
def test_nobody_reads(embed, monkeypatch, failing, status):
    """A reader of stdout or stderr that has gone changes neither the run nor its status."""
    monkeypatch.setattr(progress, "LINE_S", 0.0)
    for name in ("stdout", "stderr"):
        reading, writing = os.pipe()
        os.close(reading)
        monkeypatch.setattr(sys, name, os.fdopen(writing, "w", buffering=1))

    assert embed(backend=StandIn(failing=failing)) == status
    assert len(table("o.parquet")[0]) == 9 - len(failing)
    for stream in (sys.stdout, sys.stderr):
        with stream, open(os.devnull, "wb") as nowhere:  # noqa: PTH123  what is held must go somewhere
            os.dup2(nowhere.fileno(), stream.fileno())


def test_nobody_ever_read(embed, monkeypatch):
    """A run whose stdout and stderr were closed from the beginning ends as any other."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)

    assert embed() == 0


def test_names_that_are_not_unicode(embed, monkeypatch, tmp_path):
    """The name of a source that is no UTF-8 is told with its bytes spelled out."""
    source = b"caf\xe9.txt".decode("utf-8", "surrogateescape")
    Path("t.txt").rename(source)
    with (tmp_path / "told").open("w", encoding="utf-8") as told:
        monkeypatch.setattr(sys, "stdout", told)
        assert embed(source=source) == 0

    assert r"9 vectors of 6 float32 for 9 rows of caf\udce9.txt" in (tmp_path / "told").read_text()


def test_nothing_but_failures(embed, capsys):
    """Of an output without one vector no model is told."""
    assert embed(backend=StandIn(failing=("text",))) == 3
    assert "None" not in capsys.readouterr().out


def test_rate_after_a_resume():
    """Rows that were done before count as done, and neither make the rate nor shorten what is left."""
    telling = progress.Progress(Window(8), None)
    telling._total, telling._started_s = 1_200, time.monotonic() - 10.0
    telling.skip(1_000)
    telling.add([np.ones(2)] * 95 + [ItemError(0, "CODE", "")] * 5)
    line = telling._line()

    assert line.startswith("1,100 of 1,200 rows, ")
    assert 5.0 < float(line.split()[4].removesuffix("/s,")) <= 10.0
    assert line.endswith(" left; 5 failed; jobs in flight: 0")
    assert ", 0:1" in line


def test_many_sources(embed, capsys):
    """Of many sources, which a shell makes of a glob, a few are named."""
    many = [f"{number}.txt" for number in range(99)]
    for name in many:
        Path(name).symlink_to("t.txt")
    assert embed(others=many) == 0
    assert "rows of t.txt 0.txt 1.txt 2.txt 3.txt and 95 more\n" in capsys.readouterr().out
    assert embed(others=many[:-1]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: o.parquet was made otherwise: sources ['t.txt', '0.txt'")
    assert len(told) < 1_000


@pytest.mark.parametrize(("still_s", "ending"), [(0.0, "; no answer yet"), (60.0, "jobs in flight: 0")])
def test_what_is_waited_for(monkeypatch, still_s, ending):
    """A run whose rows do not come tells what the client last said, and not once one has come."""
    monkeypatch.setattr(progress, "STILL_S", still_s)
    log = logging.getLogger("embedding.client.wire")
    telling = progress.Progress(Window(8), None)
    with telling._said:
        log.info("the job is %s", "IN_QUEUE")
        log.info("no answer\n yet")
        assert telling._line().endswith(ending)
        telling.add([np.ones(2)])
        assert telling._line().endswith("jobs in flight: 0")
    log.info("said to nobody")

    assert telling._line().endswith("jobs in flight: 0")


def test_what_is_waited_for_while_a_run_goes_on(embed, monkeypatch, capsys):
    """The progress of a run listens to the client, and leaves its log as it was."""
    log = logging.getLogger("embedding.client")
    before = (log.level, list(log.handlers))
    monkeypatch.setattr(progress, "LINE_S", 0.0)
    monkeypatch.setattr(progress, "STILL_S", 0.0)

    class Slow(StandIn):
        async def embed(self, rows):
            while "; the job is IN_QUEUE\n" not in capsys.readouterr().err:
                log.info("the job is IN_QUEUE")
                await asyncio.sleep(0.001)
            return await super().embed(rows)

    assert embed(backend=Slow()) == 0
    assert (log.level, log.handlers) == before
