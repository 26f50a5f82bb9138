"""Each example, run as it stands against a real worker, finds what it is meant to find."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from PIL import Image

from tests.client import workers
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
