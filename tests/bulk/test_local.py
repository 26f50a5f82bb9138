"""`embed --local` as a process of its own with those that decode for it: how it ends when it is ended."""

from __future__ import annotations

import os
import signal
import time

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
