"""`--help` tells what a command does, and does nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]
PYTHON = (
    "bench",
    "deploy",
    "embedding",
    "scripts.audit",
    "scripts.demo_model",
    "scripts.workflows",
    "tests.chaos",
    "tests.corpus",
    "tests.mutants",
)
SHELL = ("build_worker", "image_test", "push_worker", "smoke_remote_worker")


@pytest.mark.parametrize(
    "command",
    [[sys.executable, "-m", name] for name in PYTHON] + [[f"scripts/{name}.sh"] for name in SHELL],
    ids=lambda command: command[-1],
)
def test_help(command):
    """It comes at once, with status 0, and names the command."""
    done = subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=20)

    assert (done.returncode, done.stderr) == (0, "")
    assert command[-1] in done.stdout
