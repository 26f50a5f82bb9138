"""`embed --local` with the processes that decode for it: how it ends when it, or one of them, is ended."""

from __future__ import annotations

import asyncio
import atexit
import os
import re
import signal
import time
from concurrent.futures import BrokenExecutor
from unittest.mock import Mock

import pytest

from embedding.client.bulk.errors import BulkError
from embedding.client.bulk.local import Local
from tests.bulk.pictures import fill_folder
from tests.bulk.running import environment, finish, parts_of, start


def test_ctrl_c_ends_all_processes_with_one_line(tmp_path):
    """Ctrl-C, which a terminal sends to all processes of a command, ends it with 130 and one line."""
    fill_folder(tmp_path / "folder", range(20))
    names = sorted(str(path) for path in (tmp_path / "folder").rglob("*.*"))
    (tmp_path / "list.txt").write_text("".join(f"{name}\n" for name in names * 5000))
    given = ("list.txt", "--as", "image", "--out", "o.parquet", "--local", "--part-rows", "64")
    process = start(*given, cwd=tmp_path, env=environment(), start_new_session=True)
    until_s = time.monotonic() + 60
    while not parts_of(tmp_path / "o.parquet") and time.monotonic() < until_s:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    status, output = finish(process)

    assert (status, output) == (130, "interrupted: run the same command to go on; what is done is kept\n")


@pytest.fixture
def loading(monkeypatch):
    """Replace all that a local run starts, and return what loads its model."""
    loading = Mock(cpu_threads=1)
    monkeypatch.setattr("embedding.intake.decoders.prepare", Mock())
    monkeypatch.setattr("embedding.intake.decoders.Decoders", Mock())
    monkeypatch.setattr("embedding.serve.loading.Loading", Mock(return_value=loading))
    monkeypatch.setattr("embedding.serve.start.fetcher_of", Mock())
    monkeypatch.setattr(atexit, "register", loading.at_exit)
    return loading


def test_ctrl_c_while_the_model_loads(loading):
    """A process that is interrupted while torch loads the model waits for that, and is not aborted by it."""
    loading.engine.loaded.result.side_effect = KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        Local(Mock(), batch_size=1)

    loading.at_exit.assert_called_once_with(loading.engine.close)


@pytest.mark.parametrize("what", ["prepare", "Decoders"])
@pytest.mark.usefixtures("loading")
def test_no_decoder_can_start(monkeypatch, what):
    """A machine on which no process can be started to decode is told of in a line, with what it lacks."""
    fault = OSError("AF_UNIX path too long")
    monkeypatch.setattr(f"embedding.intake.decoders.{what}", Mock(side_effect=fault))
    told = "no process can be started to decode pictures (AF_UNIX path too long): see to TMPDIR and /dev/shm"
    with pytest.raises(BulkError, match=re.escape(told)):
        Local(Mock(), batch_size=1)


@pytest.mark.parametrize("fault", [BrokenExecutor, EOFError, ConnectionResetError])
def test_no_process_to_decode(fault):
    """A decoder that has ended, or could not be started, ends the run in a line that says how to go on."""
    local = object.__new__(Local)
    local._decoders = Mock()
    local._decoders.submit.side_effect = fault
    with pytest.raises(BulkError, match="for want of memory perhaps: run the same command to go on"):
        asyncio.run(local._decoded([b""]))
