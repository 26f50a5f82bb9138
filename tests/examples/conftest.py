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
from tests.serve.http.process import serving


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


@pytest.fixture(scope="session")
def http_service():
    """Return the HTTP service, open to all."""
    with serving() as service:
        yield service


@pytest.fixture
def start_example(tmp_path):
    """Return what starts an example in an empty folder, as a caller would."""

    def start(name, *arguments, env):
        kept = {name: value for name, value in os.environ.items() if name in {"PATH", "LANG"}}
        return subprocess.Popen(
            [sys.executable, "-W", "error", str(ROOT / "examples" / name), *map(str, arguments)],
            cwd=tmp_path,
            env=kept | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)} | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def run_example(start_example):
    """Return what runs an example and returns its lines."""

    def run(name, *arguments, env):
        process = start_example(name, *arguments, env=env)
        out, told = process.communicate(timeout=60)
        assert (process.returncode, told) == (0, ""), told
        return out.splitlines()

    return run


@pytest.fixture
def bare(start_example):
    """Return what runs an example with nothing in its environment, and returns how it ended."""

    def run(name, *arguments):
        process = start_example(name, *arguments, env={})
        out, told = process.communicate(timeout=60)
        return subprocess.CompletedProcess(name, process.returncode, out, told)

    return run
