"""Both kinds of worker, started once, and a folder of drawn pictures."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from scripts.demo_model.draw import Scene, draw
from tests.client import workers


ROOT = Path(__file__).parents[2]
DRAWN = {"circle": "red", "square": "blue", "star": "green", "triangle": "yellow"}


@pytest.fixture(scope="session")
def serverless():
    """Return the environment that leads to the worker behind a loopback RunPod."""
    with workers.serverless() as backend:
        endpoint_id, api_key = backend.reached_by
        yield {
            "RUNPOD_ENDPOINT_ID": endpoint_id,
            "RUNPOD_API_KEY": api_key,
            "RUNPOD_ENDPOINT_BASE_URL": backend.options["api_url"],
            "EMBEDDING_HMAC_SECRET": workers.SECRET,
        }


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Return a folder with a drawing of each shape, and a smaller copy of one."""
    folder = tmp_path_factory.mktemp("photos")
    for shape, colour in DRAWN.items():
        draw(Scene(colour, shape, "white")).save(folder / f"{shape}.jpg")
    with Image.open(folder / "star.jpg") as star:
        star.resize((200, 200)).save(folder / "star small.jpg", quality=60)
    return folder


@pytest.fixture
def run_example(tmp_path):
    """Return what runs an example in an empty folder, as a caller would, and returns its lines."""

    def run(name, *arguments, env):
        kept = {name: value for name, value in os.environ.items() if name in {"PATH", "LANG"}}
        done = subprocess.run(
            [sys.executable, "-W", "error", str(ROOT / "examples" / name), *map(str, arguments)],
            cwd=tmp_path,
            env=kept | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)} | env,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout.splitlines()

    return run
