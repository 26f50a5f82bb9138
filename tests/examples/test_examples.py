"""Each example, run as it stands against a real worker, finds what it is meant to find."""

from __future__ import annotations

import ast
import os
import signal
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.client import workers
from tests.client.scripted import scripted
from tests.serve.http.process import serving


EXAMPLES = Path(__file__).parents[2] / "examples"
TOKEN = "an-example-token-of-at-least-32-bytes"


def test_serverless(serverless, photos, run_example, tmp_path):
    """The picture that the sentence describes comes first; one that is none is told by its code."""
    (tmp_path / "no picture.jpg").write_text("hello", encoding="utf-8")
    pictures = [*sorted(photos.glob("*.jpg")), "no picture.jpg"]
    lines = run_example("serverless.py", "a red circle", *pictures, env=serverless)

    assert lines[0].endswith("circle.jpg")
    assert lines[-1] == "no picture.jpg: DECODE_ERROR"
    assert len(lines) == len(pictures)


def test_http_service(photos, run_example):
    """Each picture gets its own label, by a service that asks for a token."""
    signed = {name: value for name, value in workers.SIGNED.items() if "SECRET" not in name}
    with serving(signed | {"WORKER_TOKEN": TOKEN}) as service:
        names = [photos / f"{shape}.jpg" for shape in ("circle", "square", "star")]
        lines = run_example(
            "http_service.py", service.url, "circle,square,star", *names, env={"WORKER_TOKEN": TOKEN}
        )

    assert [line.split(" ")[0] for line in lines] == ["circle", "square", "star"]


def test_bulk_to_lancedb(serverless, photos, run_example):
    """The table answers a sentence, and holds each picture once when it is filled again."""
    for _ in range(2):
        lines = run_example("bulk_to_lancedb.py", photos, "photos.lance", "a red circle", env=serverless)

    assert lines[0].endswith("circle.jpg")
    assert len(lines) == len(set(lines)) == 5


def test_near_duplicates(serverless, photos, run_example, tmp_path):
    """The smaller copy is found, and a plot is drawn."""
    lines = run_example("near_duplicates.py", photos, "plot.png", env=serverless)

    assert len(lines) == 1
    assert lines[0].endswith(f" {photos}/star small.jpg {photos}/star.jpg")
    with Image.open(tmp_path / "plot.png") as plot:
        assert plot.size == (1050, 600)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_usage(path, bare):
    """Without arguments it says in one line which it takes."""
    done = bare(path.name)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"usage: {path.name} ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("serverless.py", ["a red circle", "photos/star.jpg"], "RUNPOD_API_KEY: it is not set"),
        ("bulk_to_lancedb.py", ["photos", "photos.lance", "a red circle"], "RUNPOD_API_KEY: it is not set"),
        ("near_duplicates.py", ["photos", "plot.png"], "RUNPOD_API_KEY: it is not set"),
        ("http_service.py", ["127.0.0.1", "a circle", "photos/star.jpg"], "base_url must be an address"),
        ("bulk_to_lancedb.py", ["empty", "photos.lance", "a red circle"], "there are no pictures in empty"),
        ("near_duplicates.py", ["empty", "plot.png"], "there are no pictures in empty"),
    ],
)
def test_what_cannot_run(name, arguments, told, bare, tmp_path):
    """No worker, no address or no picture: one line that says so."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "photos/star.jpg")
    done = bare(name, *arguments)

    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert told in done.stderr


@pytest.mark.parametrize("name", ["serverless.py", "http_service.py"])
def test_interrupted(name, tmp_path, start_example):
    """Ctrl-C ends it with 130 and no traceback: plain code, and coroutines."""
    os.mkfifo(tmp_path / "never.jpg")
    with scripted() as script:
        url = {"http_service.py": [script.url]}.get(name, [])
        env = {"CLIP_INFERENCE_BACKEND": "runpod_pod", "CLIP_POD_BASE_URL": script.url}
        process = start_example(name, *url, "a red circle", "never.jpg", env=env)
        with (tmp_path / "never.jpg").open("wb"):  # returns once the example reads
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)
        told = process.communicate(timeout=20)[1]

    assert (process.returncode, told) == (130, "")


@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".PNG", ".webp", ".gif"])
def test_suffixes(suffix, http_service, photos, run_example, tmp_path):
    """Pictures are found by any usual suffix, in any case."""
    (tmp_path / "some" / "deep").mkdir(parents=True)
    with Image.open(photos / "star.jpg") as star:
        star.save(tmp_path / f"some/deep/one{suffix}")
        star.save(tmp_path / f"some/two{suffix}")
    env = {"CLIP_INFERENCE_BACKEND": "runpod_pod", "CLIP_POD_BASE_URL": http_service.url}
    (line,) = run_example("near_duplicates.py", "some", "plot.png", env=env)

    assert line.split(" ")[1:] == [f"some/deep/one{suffix}", f"some/two{suffix}"]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_is_tested_and_short(path):
    """Every example has its test here, and fits on a screen."""
    source = path.read_text(encoding="utf-8")
    tests = {
        node.name
        for node in ast.walk(ast.parse(Path(__file__).read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }

    assert f"test_{path.stem}" in tests
    assert len(source.splitlines()) <= 60
