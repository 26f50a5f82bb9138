"""From a folder of pictures to a sentence that finds one: `embed`, then `search` of what it wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from embedding.__main__ import main
from scripts.demo_model.draw import Scene, draw
from tests.client.workers import SECRET
from tests.serve.conftest import ROOT


DRAWN = {"circle": "red", "square": "blue", "star": "green", "triangle": "yellow"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a place with a folder of drawn pictures."""
    place = tmp_path_factory.mktemp("end to end")
    for deep, (shape, colour) in enumerate(DRAWN.items()):
        path = place / "photos" / f"{deep % 2}" / f"{colour} {shape}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(Scene(colour, shape, "white")).save(path)
    return place


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """Return what runs a command beside the folder, and returns its stdout once it has succeeded."""
    monkeypatch.setenv("EMBEDDING_HMAC_SECRET", SECRET)
    monkeypatch.chdir(folder)

    def command(*arguments):
        status = main([*map(str, arguments)])
        out, err = capsys.readouterr()
        assert status == 0, err
        return out

    return command


@pytest.fixture
def where(backend, monkeypatch):
    """Return the arguments that reach the backend, over HTTP or through RunPod's queue on loopback."""
    if backend.name == "http":
        return ["--url", *backend.reached_by]
    endpoint_id, api_key = backend.reached_by
    monkeypatch.setenv("RUNPOD_API_KEY", api_key)
    monkeypatch.setenv("RUNPOD_ENDPOINT_BASE_URL", backend.options["api_url"])
    return ["--endpoint", endpoint_id]


@pytest.mark.parametrize("suffix", ["parquet", "npy"])
def test_embedded_folder_is_searched(run, where, folder, backend, suffix):
    """Each sentence finds its picture in what `embed` wrote, and the page shows it by its id."""
    name = f"{backend.name}.{suffix}"
    told = run("embed", "photos", "--out", name, *where)
    sentences = [f"a {colour} {shape}" for shape, colour in DRAWN.items()]
    queries = json.loads(run("search", name, *sentences, "--json", *where))["queries"]
    run("search", name, "a red circle", "--top", 1, "--html", f"{name}.html", *where)

    assert "4 vectors of 512 float32 for 4 rows of photos\n" in told
    assert [query["results"][0]["id"] for query in queries] == [
        f"photos/{deep % 2}/{colour} {shape}.png" for deep, (shape, colour) in enumerate(DRAWN.items())
    ]
    assert "data:image/jpeg;base64," in (folder / f"{name}.html").read_text(encoding="utf-8")


def test_on_this_machine(folder):
    """The same without any service, each command in a process of its own."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "LANG", "HOME"}}
    env = kept | {"PYTHONPATH": str(ROOT), "ALLOW_DEMO_MODEL": "1", "CLIP_PRECISION": "fp32"}
    out = ""
    for arguments in (
        ["embed", "photos", "--out", "local.parquet", "--local"],
        ["search", "local.parquet", "a green star", "--top", "1", "--local"],
    ):
        command = [sys.executable, "-m", "embedding", *arguments]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        out = done.stdout

    assert out.splitlines()[-1].endswith("  photos/0/green star.png")
