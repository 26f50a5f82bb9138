"""A checkout of its own for the scripts about images, with engines that only note what they are asked."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]
ENGINES = ("docker", "podman", "buildah")
INPUTS = ("Dockerfile", ".dockerignore", "requirements.txt", "constraints.txt", "handler.py")


@dataclass
class Checkout:
    """A git repository with the scripts and what an image is made of; `does` is how the engines behave."""

    root: Path
    answers: str = "docker podman buildah"
    does: str = "push"

    @property
    def commit(self):
        """The commit that is checked out."""
        return self.git("rev-parse", "HEAD").strip()

    def git(self, *arguments):
        """Run git and return what it prints."""
        return subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", *arguments],
            cwd=self.root,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout

    def run(self, script, *arguments, **environment):
        """Run a script with the fake engines first on the path."""
        (self.root.parent / "commit").write_text(environment.pop("built_from", None) or self.commit)
        return subprocess.run(
            [self.root / "scripts" / script, *arguments],
            env={
                "PATH": f"{self.root.parent / 'bin'}:{os.environ['PATH']}",
                "HOME": str(self.root.parent),
                "SAID": str(self.root.parent / "said"),
                "COMMIT_FILE": str(self.root.parent / "commit"),
                "ANSWERS": self.answers,
                "DOES": self.does,
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=30,
        )

    def said(self, word):
        """Return the calls of an engine that begin with *word*, without the engine's name."""
        calls = [line.partition(" ")[2] for line in (self.root.parent / "said").read_text().splitlines()]
        return [call for call in calls if call.startswith(word)]


@pytest.fixture
def checkout(tmp_path):
    """Return a fresh checkout, all committed."""
    (tmp_path / "bin").mkdir()
    for engine in ENGINES:
        (tmp_path / "bin" / engine).symlink_to(Path(__file__).with_name("fake_engine.sh"))
    root = tmp_path / "checkout"
    (root / "embedding").mkdir(parents=True)
    (root / "embedding" / "__init__.py").write_text("")
    (root / "README.md").write_text("")
    for name in INPUTS:
        shutil.copy(ROOT / name, root / name)
    (root / "scripts").mkdir()
    for script in (ROOT / "scripts").glob("*.sh"):
        shutil.copy(script, root / "scripts")
    made = Checkout(root)
    made.git("init", "--quiet")
    made.git("add", ".")
    made.git("commit", "--quiet", "--message", "all")
    return made
