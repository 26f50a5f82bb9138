"""docs/RECIPES.md is true: its recipes are run in order, against one service, in a folder of their own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from embedding.contract.keys import Keyring
from embedding.contract.signatures import Verifier
from tests.docs.blocks import blocks_of, commands_of, prints
from tests.serve.http.process import serving


ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/RECIPES.md"
BLOCKS = blocks_of(DOCUMENT.read_text(encoding="utf-8"))
SERVICE = "http://127.0.0.1:8000"
SECRET = "an-example-secret-of-at-least-32-bytes"
NODE = shutil.which("node")
TRY = """
const input = { texts: ["a red circle", "\\u20ac \\ud83d\\ude00"], normalize: true, 2: 1, 10: null };
console.log(JSON.stringify(signed(input, process.argv[2])));
"""


@pytest.fixture(scope="module")
def service():
    """Return the service that the document starts, on a free port."""
    with serving() as service:
        yield service


@pytest.fixture(scope="module")
def folder(service, tmp_path_factory):
    """Return a folder with the pictures that the document begins with."""
    folder = tmp_path_factory.mktemp("recipes")
    with contextlib.chdir(folder):
        printed(BLOCKS[1].body)
    return folder


def scripts():
    """Return every Python block with what is said to be printed."""
    shown = [block for block in BLOCKS if block.kind.startswith("python")]
    assert [block.kind for block in shown] == ["python", "python output"] * (len(shown) // 2)
    return [pytest.param(*pair, id=pair[0].section) for pair in zip(shown[::2], shown[1::2], strict=True)]


def printed(script):
    """Return what *script* prints, run as a file of its own would be."""
    into = io.StringIO()
    with contextlib.redirect_stdout(into):
        exec(compile(script, "recipe", "exec"), {"__name__": "__main__"})  # noqa: S102  our own document
    return into.getvalue()


@pytest.mark.parametrize(("script", "output"), scripts())
def test_recipe(script, output, service, folder, monkeypatch):
    """It prints what stands below it."""
    monkeypatch.chdir(folder)

    actual = printed(script.body.replace(SERVICE, service.url))
    assert prints(output.body, actual), f"line {script.line}:\n{actual}"


def test_commands(service, folder):
    """Each command prints what stands below it."""
    commands = [command for block in BLOCKS if block.kind == "console" for command in commands_of(block)]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    assert commands
    for command in commands:
        done = subprocess.run(
            ["bash", "-c", command.line.replace(SERVICE, service.url)],
            cwd=folder,
            env={"PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        assert prints(command.expected, done.stdout), f"$ {command.line}\n{done.stdout}"


def test_the_service_is_the_one_that_is_tested():
    """The document starts an open service with the demo model, as the tests do."""
    (line,) = [
        command.line for block in BLOCKS if block.kind == "console server" for command in commands_of(block)
    ]

    assert line == "python -m embedding serve --demo --host 127.0.0.1"


@pytest.mark.skipif(NODE is None, reason="Node is not installed")
def test_javascript(tmp_path):
    """What the recipe signs is accepted, and not after a change."""
    (block,) = [block for block in BLOCKS if block.kind == "javascript"]
    (tmp_path / "try.mjs").write_text(block.body + TRY, encoding="utf-8")
    command = [NODE, tmp_path / "try.mjs", SECRET]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    job_input = json.loads(done.stdout)
    verifier = Verifier(Keyring.parse(SECRET))

    verifier.verify_job(job_input, job_id="1")
    with pytest.raises(Exception, match="auth is missing, expired or not valid"):
        verifier.verify_job(job_input | {"normalize": False}, job_id="2")


def test_every_link_leads_somewhere():
    """Each file that the document links to exists."""
    links = re.findall(r"\]\(([^)#]+)\)", DOCUMENT.read_text(encoding="utf-8"))

    assert links
    assert [link for link in links if not (DOCUMENT.parent / link).exists()] == []
