"""The command itself, in its own process: a worker behind a platform in a bad mood, and the local mode."""

from __future__ import annotations

import signal
import sys
import time

import numpy as np
import pytest

from embedding.__main__ import main
from tests.bulk.pictures import fill_folder, fill_tar
from tests.bulk.running import endpoint, environment, finish, kill_after, parts_of, start
from tests.bulk.stand_in import table
from tests.serve.http.process import serving


PICTURES = 240


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Return a place with a folder, a tar and a file that is no picture."""
    place = tmp_path_factory.mktemp("sources")
    fill_folder(place / "folder", range(PICTURES // 2))
    (place / "folder" / "zzz.png").write_bytes(b"no picture")
    fill_tar(place / "shard.tar", range(PICTURES // 2, PICTURES))
    return place


@pytest.fixture(scope="module")
def local(sources):
    """Return status, output and table of a local run of all sources."""
    arguments = ("folder", "shard.tar", "--out", "local.parquet", "--local")
    status, output = finish(start(*arguments, cwd=sources, env=environment()))
    return status, output, table(sources / "local.parquet")


def test_local(local):
    """Without any platform the same command embeds by this machine, and tells what failed."""
    status, output, (ids, vectors) = local

    assert status == 3, output
    assert "240 vectors of 512 float32 for 241 rows of folder shard.tar" in output
    assert "1 row failed: DECODE_ERROR 1; listed in local.parquet.failed.csv" in output
    assert (len(ids), vectors.shape) == (PICTURES, (PICTURES, 512))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.fixture(scope="module")
def platform():
    """Return a platform with a worker: calls fail, results are held, jobs come twice."""
    with endpoint(share=0.05, done_delay_s=0.05, duplicates=True) as platform:
        yield platform


def test_killed_and_disturbed(sources, local, platform):
    """With failing calls, held results, duplicates and a kill, the queue gives what the local run gave."""
    out = sources / "queue.parquet"
    given = ("folder", "shard.tar", "--out", out.name, "--endpoint", "loopback", "--part-rows", "16")
    first = start(*given, "--batch-size", "8", "--concurrency", "4", cwd=sources, env=environment(platform))
    assert kill_after(first, out, 2)
    assert 2 <= parts_of(out) < 15
    status, output = finish(start(*given, cwd=sources, env=environment(platform)))
    assert status == 3, output
    ids, vectors = table(out)

    assert ids == local[2][0]
    assert np.sum(vectors * local[2][1], axis=1).min() > 0.999
    assert not parts_of(out)


def test_over_http(sources, local):
    """The HTTP service gives what the local run gave, though it takes fewer items in a request."""
    given = ("shard.tar", "--out", "http.parquet", "--dtype", "float16")
    with serving({"ALLOW_DEMO_MODEL": "1", "WORKER_TOKEN": "t" * 40, "MAX_BATCH_SIZE": "16"}) as service:
        env = environment(WORKER_TOKEN="t" * 40)
        status, output = finish(start(*given, "--url", service.url, cwd=sources, env=env))
    assert status == 0, output
    ids, vectors = table(sources / "http.parquet")

    assert ids == local[2][0][PICTURES // 2 :]
    assert np.sum(vectors * local[2][1][PICTURES // 2 :], axis=1).min() > 0.998


def test_ctrl_c(sources, platform):
    """Ctrl-C cancels the jobs that are out, says how to go on in one line, and leaves with 130."""
    platform._faults._share = 0.0
    platform.delay_done(2.0)
    before = set(platform._store.jobs)
    given = ("shard.tar", "--out", "c.parquet", "--endpoint", "loopback")
    process = start(*given, cwd=sources, env=environment(platform))
    until_s = time.monotonic() + 20
    while set(platform._store.jobs) == before and time.monotonic() < until_s:
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    status, output = finish(process)
    states = {str(job.status) for name, job in platform._store.jobs.items() if name not in before}

    assert (status, output) == (130, "interrupted: run the same command to go on; what is done is kept\n")
    assert states == {"CANCELLED"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("a.txt", "--out", "o.csv", "--local"), "error: --out o.csv must end in .parquet or .npy"),
        (("a.txt", "--out", "no/o.npy", "--local"), "error: --out no/o.npy: there is no folder no"),
        (("b.txt", "--out", "o.npy", "--local"), "error: SOURCE b.txt is not there"),
        (
            ("a.txt", "--out", "o.npy"),
            "error: no worker is named: give --url, --endpoint or --local; without them ",
        ),
        (
            ("a.txt", "--out", "o.npy", "--endpoint", "abc"),
            "error: the environment is not valid: RUNPOD_API_KEY",
        ),
        (
            ("a.txt", "--out", "o.npy", "--url", "example.org"),
            "error: --url must be an address that begins with https:// or http://, ",
        ),
        (("a.txt", "--out", "o.npy", "--local"), "error: --local: no model is chosen"),
        (
            ("a.txt", "--out", "o.npy", "--retry-failed", "--local"),
            "error: --retry-failed: there is no output yet",
        ),
    ],
)
def test_bad_arguments(tmp_path, arguments, told, monkeypatch, capsys):
    """Each mistake ends in one line that names it, with status 1, and leaves nothing behind."""
    for name in ("RUNPOD_API_KEY", "RUNPOD_ENDPOINT_ID", "ALLOW_DEMO_MODEL", "MODEL_PATH", "CLIP_MODEL_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("a text\n")

    assert main(["embed", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith(told)
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--local", "--url", "http://127.0.0.1"),
        ("--local", "--endpoint", "abc"),
        ("--restart", "--retry-failed"),
        ("--concurrency", "0"),
        ("--concurrency", "10001"),
        ("--batch-size", "4097"),
        ("--part-rows", "0"),
    ],
)
def test_arguments_that_argparse_refuses(arguments, capsys):
    """Two backends at once, and numbers out of their limits, are refused with status 2."""
    with pytest.raises(SystemExit) as ended:
        main(["embed", "a.txt", "--out", "o.npy", *arguments])

    assert ended.value.code == 2


@pytest.mark.parametrize("out", ["o.parquet", "o.npy"])
def test_pyarrow_is_asked_for(monkeypatch, tmp_path, capsys, out):
    """Without pyarrow the line says what to install, before anything is loaded."""
    for name in [name for name in sys.modules if name.split(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("a text\n")

    assert main(["embed", "a.txt", "--out", out, "--local"]) == 1
    assert "error: pyarrow is not installed: pip install '.[bulk]'" in capsys.readouterr().err
