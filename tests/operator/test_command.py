"""`python -m embedding download` from the command line: words for people, lines for the worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from embedding.model.folder import WEIGHTS_NAME
from tests.model.hub import running_hub
from tests.serve.conftest import ROOT


KEPT = "what came is kept: run the same command again, and it goes on from there"


@pytest.fixture
def hub():
    """A hub whose answers can be held."""
    with running_hub() as hub:
        hub.files = {"open_clip_config.json": b"{}", WEIGHTS_NAME: bytes(30_000_000)}
        yield hub


def start(hub, root, *arguments, **env):
    """Start the command."""
    return subprocess.Popen(
        [sys.executable, "-m", "embedding", "download", "--model=hf-hub:org/name", *arguments],
        env={**os.environ, "HF_ENDPOINT": hub.address, "MODEL_ROOTS": f"/elsewhere,{root}", **env},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(hub, tmp_path, number):
    """Ctrl-C and SIGTERM end it in one line; what came is kept, and nobody waits for it."""
    hub.holds_at = 15_000_000
    process = start(hub, tmp_path / "models", HF_HUB_DISABLE_PROGRESS_BARS="1")
    assert hub.held.wait(30)
    process.send_signal(number)
    out, told = process.communicate(timeout=30)

    assert (process.returncode, told) == (130, f"interrupted; {KEPT}\n")
    assert out == "downloading, 0 of 30 MB\n"
    assert [path.name for path in (tmp_path / "models").glob(".download/*/*")] == ["org--name"]


def test_it_comes_last(hub, tmp_path):
    """Beside a worker it has the least of the processor, and is killed first where memory is short."""
    hub.holds_at = 1_000_000
    with start(hub, tmp_path / "models", "--json") as process:
        assert hub.held.wait(30)
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == 19
        assert Path(f"/proc/{process.pid}/oom_score_adj").read_text() == "1000\n"
        assert Path(f"/proc/{process.pid}/fd/1").readlink() == Path(f"/proc/{process.pid}/fd/2").readlink()
        process.terminate()


def test_fault(hub, tmp_path):
    """What goes wrong is one line on stderr, and for the worker one on stdout; the cause goes to the log."""
    hub.refusal = 404, {"X-Error-Code": "RepoNotFound"}
    told = "org/name does not exist on the hub, or HF_TOKEN may not read it"
    for_people = start(hub, tmp_path / "models")
    for_worker = start(hub, tmp_path / "others", "--json")
    _, error = for_people.communicate(timeout=30)
    line, log = for_worker.communicate(timeout=30)

    assert (for_people.returncode, error.splitlines()[-1]) == (1, f"error: {told}")
    assert json.loads(line) == {
        "event": "failed",
        "code": "DOWNLOAD_ERROR",
        "message": told,
        "retryable": False,
    }
    assert "RepositoryNotFoundError: " in log


@pytest.mark.parametrize("arguments", [["--pretrained=../x"], ["--pretrained=x"], ["--model=ViT-B-32"]])
def test_a_name_that_is_none(hub, tmp_path, arguments):
    """What cannot be a name is refused, in the words of the command, before anything is made of it."""
    process = start(hub, tmp_path / "models", *arguments)
    _, error = process.communicate(timeout=30)

    assert process.returncode == 1
    assert error.startswith("error: --model must be a name of open_clip, ViT-B-32 say, with --pretrained")
    assert not (tmp_path / "models").exists()


def test_the_worker_is_gone(hub, tmp_path):
    """A process whose worker was killed ends when it next has something to tell."""
    process = start(hub, tmp_path / "models", "--json")
    process.stdout.close()

    assert process.wait(30) != 0
    assert not (tmp_path / "models" / "org--name").exists()
    process.stderr.close()
