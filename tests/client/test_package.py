"""What `pip install .` gives: the client, on the packages that it names and no others."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import embedding
from tests.client.scripted import scripted


ROOT = Path(__file__).parents[2]
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
PROGRAM = """
import numpy, sys
from PIL import Image
from embedding.client import HttpClient, client_from_env
with HttpClient(sys.argv[1], secret="s" * 32) as client:
    print(client.embed_batch([{"text": "x"}, {"image": Image.new("RGB", (8, 8))}]).vectors.shape)
try:
    client_from_env()
except Exception as fault:
    print(type(fault).__name__)
print("torch" in sys.modules, sys.modules["embedding"].__file__.startswith(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Return the wheel, built by what builds it for pip, from what is in the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT / "embedding", source / "embedding", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.txt", "requirements-bulk.txt", "README.md"):
        shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "-c", BUILD, folder], cwd=source, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def told(wheel):
    """Return what the wheel says of itself."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def needs(requirements, extra=""):
    """Return the names that apply here."""
    found = [Requirement(line) for line in requirements]
    return {
        canonicalize_name(need.name)
        for need in found
        if need.marker is None or need.marker.evaluate({"extra": extra})
    }


def with_all_that_they_need(names):
    """Return *names* and what those need, as this installation says."""
    known, open_names = set(), set(names)
    while open_names:
        name = open_names.pop()
        known.add(name)
        open_names |= needs(metadata.requires(name) or []) - known
    return known


def install(names, folder):
    """Link what the installed packages *names* brought into *folder*."""
    for name in names:
        distribution = metadata.distribution(name)
        tops = {file.parts[0] for file in distribution.files} - {".."}
        for top in tops:
            (folder / top).symlink_to(distribution.locate_file(top))


def test_version_is_the_packages(told):
    """There is one place that says which version this is."""
    assert told["Version"] == embedding.__version__


@pytest.mark.parametrize(
    ("extra", "file"), [("worker", "requirements.txt"), ("bulk", "requirements-bulk.txt")]
)
def test_extras_are_what_the_files_pin(told, extra, file):
    """The worker's extra has every pin of requirements.txt, bulk's those of its own, and the client none."""
    pins = [line for line in (ROOT / file).read_text().splitlines() if not line.startswith("#")]
    needed = told.get_all("Requires-Dist")
    extra = [line.split(";")[0].strip() for line in needed if f'extra == "{extra}"' in line]
    plain = [line for line in told.get_all("Requires-Dist") if "extra ==" not in line]

    assert sorted(extra) == sorted(pins)
    assert all(re.fullmatch(r"[a-z0-9-]+>=[0-9.]+", line) for line in plain)


def test_what_the_image_holds_suits_the_client(told):
    """No pin of the worker is older than what the client asks for."""
    for line in told.get_all("Requires-Dist"):
        need = Requirement(line)
        if need.marker is None:
            assert need.specifier.contains(metadata.version(need.name)), line


@pytest.mark.parametrize(
    "file",
    ["py.typed", "intake/bpe_merges.npy", "model/demo/open_clip_model.safetensors", "data/red_circle.jpg"],
)
def test_data_is_inside(wheel, file):
    """Types, merges, the demo model and the picture of the smoke test come along."""
    with zipfile.ZipFile(wheel) as archive:
        assert f"embedding/{file}" in archive.namelist()


def test_nothing_else_is_inside(wheel):
    """Tests and scripts stay out."""
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}

    assert tops == {"embedding", f"{wheel.name.rsplit('-', 3)[0]}.dist-info"}


@pytest.fixture(scope="module")
def installed(wheel, told, tmp_path_factory):
    """Return a folder with the client, its own dependencies, those of these, and nothing of torch."""
    folder = tmp_path_factory.mktemp("installed")
    names = with_all_that_they_need(needs(told.get_all("Requires-Dist")))
    assert not names & {"torch", "runpod", "fastapi", "open-clip-torch"}
    install(names, folder)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run_installed(folder, *arguments):
    """Run Python where nothing but *folder* is installed."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(folder), "ALLOW_DEMO_MODEL": "1"}
    command = [sys.executable, "-S", "-P", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "--demo"],
        ["prepare", "--model=ViT-B-32", "--out=build/never"],
        ["golden", "embedding/model/demo"],
        ["download", "--model=ViT-B-32"],
        ["embed", "embedding/data", "--out={}/out.npy", "--local"],
        ["search", "{}/v.npy", "a red circle", "--local", "--fingerprint=1"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_needs_the_worker_says_so(installed, tmp_path, arguments):
    """Without the worker's packages a command that needs them ends in one line that says what to install."""
    np.save(tmp_path / "v.npy", np.ones((1, 4), np.float32))
    (tmp_path / "v.ids.txt").write_text("a\n", encoding="utf-8")
    done = run_installed(installed, "-m", "embedding", *(each.format(tmp_path) for each in arguments))

    assert (done.returncode, done.stdout) == (1, "")
    assert " needs the worker's packages, and torch, open_clip, " in done.stderr
    assert "pip install '.[worker]'" in done.stderr
    assert (done.stderr[:7], done.stderr.count("\n")) == ("error: ", 1), done.stderr


@pytest.mark.parametrize("name", ["serverless.py", "http_service.py"])
def test_examples_run_on_it(installed, name):
    """The examples that need no package of their own find the installed client, from a clone."""
    done = run_installed(installed, ROOT / "examples" / name)

    assert (done.returncode, done.stderr[: len(f"usage: {name}")]) == (2, f"usage: {name}")


def test_client_lives_on_what_it_names(installed):
    """The installed client embeds."""
    with scripted() as script:
        done = run_installed(installed, "-c", PROGRAM, script.url, installed)

    assert done.stdout.split("\n")[:3] == ["(2, 4)", "NotConfigured", "False True"], done.stderr
