"""README.md and the documents beside it are true: every command is run, every answer compared."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from embedding.serve.start import start
from tests.docs.blocks import KINDS, agrees, blocks_of, commands_of, prints
from tests.docs.runpod import runpod_account


ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "LOCAL_TESTING.md", "POD.md", "RUNBOOK.md")
SERVER_PORT = 8000

# This run is `make test`; running it again inside would not end.
BY_THIS_RUN = ("make test", "make check")


def sections():
    """Return every section with its claims, as test parameters."""
    for name in DOCUMENTS:
        groups: dict[str, list] = {}
        for block in blocks_of((ROOT / name).read_text(encoding="utf-8")):
            section = "an endpoint's life" if block.kind == "console runpod" else block.section
            groups.setdefault(section, []).append(block)
        for section, blocks in groups.items():
            yield pytest.param(blocks, id=f"{name}: {section}")


@pytest.fixture(scope="module")
def local_worker():
    """Return a worker in this process, with the demo model, as `import handler` gives it."""
    return start()


@pytest.mark.parametrize("blocks", [*sections()])
class TestSections:
    def test_every_block_is_of_a_known_kind(self, blocks):
        """No block escapes these tests by its kind."""
        assert {block.kind for block in blocks} <= KINDS

    def test_commands_print_what_is_said(self, blocks):
        """Each command, run in the repository, prints what stands below it."""
        servers = [block for block in blocks if block.kind == "console server"]
        running = [serve(command.line) for block in servers for command in commands_of(block)]
        try:
            for block in blocks:
                for command in commands_of(block) if block.kind == "console" else []:
                    check(command)
            for script, output in scripts_of(blocks):
                printed = run_script(script)
                assert prints(output, printed), f"line {script.line}:\n{printed}"
        finally:
            for process in running:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)

    def test_deployments_print_what_is_said(self, blocks, tmp_path):
        """Each command of an endpoint's life, in order, does to a RunPod on loopback what is said."""
        commands = [
            command for block in blocks if block.kind == "console runpod" for command in commands_of(block)
        ]
        if commands:
            with runpod_account(tmp_path) as env:
                for command in commands:
                    done = run(command.line, cwd=tmp_path, **env)
                    assert prints(command.expected, done.stdout), f"$ {command.line}\n{done.stdout}"

    def test_answers_are_what_is_said(self, blocks, local_worker):
        """Each job shown, run through the worker, is answered as shown."""
        shown = [block for block in blocks if block.kind in ("json request", "json answer")]
        answer = None
        for block in shown:
            body = json.loads(block.body)
            if block.kind == "json request":
                answer = asyncio.run(local_worker.handler({"id": "shown", **with_picture(body)}))
            else:
                assert agrees(body, answer), f"line {block.line}: {json.dumps(answer)[:2000]}"


def with_picture(job):
    """Return *job* with the bundled picture for each base64 that the document cuts short."""
    picture = json.loads((ROOT / "test_input.json").read_text(encoding="utf-8"))["input"]["items"][0]
    text = json.dumps(job).replace('"/9j/4AAQ..."', json.dumps(picture["image_base64"]))
    return json.loads(text)


def check(command):
    """Run *command* and hold its output against the document."""
    if command.line.startswith(BY_THIS_RUN):
        subprocess.run(
            ["make", "--dry-run", *command.line.split()[1:]], cwd=ROOT, check=True, capture_output=True
        )
        return
    done = run_as_container(command.line) if command.line.startswith("docker run ") else run(command.line)
    assert prints(command.expected, done.stdout), f"$ {command.line}\n{done.stdout}"


def scripts_of(blocks):
    """Return each Python block with the output that stands below it."""
    shown = [block for block in blocks if block.kind in ("python", "python output")]
    assert [block.kind for block in shown] == ["python", "python output"] * (len(shown) // 2)
    return [(script, output.body) for script, output in zip(shown[::2], shown[1::2], strict=True)]


def run_script(block):
    """Return what a Python block prints, warnings and errors included, as if pasted into a file."""
    return subprocess.run(
        ["python", "-c", block.body],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
    ).stdout


def run_as_container(line):
    """Run what `docker run` would: the image's command and environment, in a folder with nothing else."""
    words = shlex.split(line)
    given = dict(words[i + 1].split("=", 1) for i, word in enumerate(words) if word == "-e")
    with tempfile.TemporaryDirectory() as folder:
        command = f"{sys.executable} -u -X faulthandler {ROOT / 'handler.py'}"
        return run(command, cwd=folder, **{"RUNPOD_SERVERLESS": "1", **given})


def run(line, *, cwd=ROOT, **env):
    """Run one command line, in the repository unless told otherwise, with .venv first on the path."""
    return subprocess.run(
        ["bash", "-c", line],
        cwd=cwd,
        env=environment() | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
    )


def serve(line):
    """Start a command that stays, and wait until its port answers."""
    process = subprocess.Popen(
        ["bash", "-c", line],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", SERVER_PORT)) == 0:
                return process
        time.sleep(0.1)
    pytest.fail(f"{line} never listened on port {SERVER_PORT}")


def environment():
    """Return this process's environment without what would change a worker."""
    python = Path(shutil.which("python3") or "python3").parent
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RUNPOD_", "CLIP_", "MAKE", "MFLAGS"))
    }
    return kept | {"PATH": f"{ROOT / '.venv/bin'}:{python}:{os.environ['PATH']}", "NO_PROXY": "127.0.0.1"}
