"""`python -m tests.mutants [PART...]`: whether the tests notice each small mistake in what guards the worker.

Each mutant runs in a child process of its own: the mutated module takes the place of the file, which stays as
it is, and the module's own tests run until one fails. A mutant that no test notices must stand in
`equivalent.toml` with the reason why it changes nothing; exit status 1 says that one does not, or that one
that stands there is noticed or gone. PART, a piece of a path, chooses modules.

Own code, because what there is leaves out what matters here: mutmut does not touch what stands outside
functions (tables, patterns, defaults of limits), cosmic-ray no strings, and it writes into the sources.
"""

from __future__ import annotations

import argparse
import ast
import faulthandler
import importlib.util
import os
import sys
import time
import tomllib
from importlib.abc import MetaPathFinder
from importlib.machinery import SourceFileLoader
from pathlib import Path

import _hypothesis_pytestplugin
import anyio.pytest_plugin
import hypothesis.extra.numpy
import numpy as np
import PIL.Image
import pydantic
import pytest
import pytest_socket
import pytest_timeout
import rfc8785
import torch

from tests.mutants.operators import Mutant, mutants_of
from tests.mutants.targets import TARGETS, Target


ROOT = Path(__file__).parents[2]
LISTED = Path(__file__).with_name("equivalent.toml")
MAX_TEST_S = 20
MAX_MUTANT_S = 100
# Once, not in every child.
PRELOADED = (
    *(_hypothesis_pytestplugin, anyio.pytest_plugin, pytest_socket, pytest_timeout),
    *(hypothesis.extra.numpy, np, PIL.Image, pydantic, rfc8785, torch),
)


class MutatedModule(SourceFileLoader, MetaPathFinder):
    """Gives the mutated tree to whoever imports the module."""

    def __init__(self, path: str, mutant: Mutant) -> None:
        super().__init__(path.removesuffix(".py").replace("/", "."), str(ROOT / path))
        self.mutant = mutant

    def find_spec(self, fullname, *_):
        """Return a spec for the mutated module, and for no other."""
        return (
            importlib.util.spec_from_file_location(fullname, self.path, loader=self)
            if fullname == self.name
            else None
        )

    def get_code(self, _fullname):
        """Return the mutated tree, compiled."""
        return compile(self.mutant.tree, self.path, "exec")


def main(parts: list[str]) -> int:
    """Run the mutants of the chosen targets and return the exit status."""
    listed = tomllib.loads(LISTED.read_text(encoding="utf-8"))["mutant"]
    faults = 0
    chosen = [each for each in TARGETS if not parts or any(part in each.path for part in parts)]
    if not chosen:
        print("no module's path holds that; choose from", *(target.path for target in TARGETS))
        return 2
    for target in chosen:
        started_s = time.monotonic()
        mutants = mutants_of((ROOT / target.path).read_text(encoding="utf-8"), target.only)
        if not passes(target, Mutant("none", unchanged(target.path))):
            print(f"{target.path}: its tests fail without any mutation")
            return 1
        survivors = survivors_of(target, mutants)
        known = [each["change"] for each in listed if each["module"] == target.path]
        faults += report(target.path, survivors, known)
        print(
            f"{target.path}: {len(mutants)} mutants, {len(mutants) - len(survivors)} noticed, "
            f"{len(known)} known to change nothing, {time.monotonic() - started_s:.0f} s",
            flush=True,
        )
    return int(faults > 0)


def parts_of(arguments: list[str]) -> list[str]:
    """Return the PARTs that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART")
    return parser.parse_args(arguments).parts


def unchanged(path: str) -> ast.Module:
    """Return the tree of the module as it is."""
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def report(path: str, survivors: list[str], known: list[str]) -> int:
    """Print what differs from the list, and return how much does."""
    for name in survivors:
        if name not in known:
            print(f"{path}: no test notices  {name}")
    for name in known:
        if name not in survivors:
            print(f"{path}: listed, but noticed or gone  {name}")
    return len(set(survivors) ^ set(known))


def survivors_of(target: Target, mutants: list[Mutant]) -> list[str]:
    """Return the names of the mutants with which all tests pass; as many run at once as there are cores."""
    waiting, running, survivors = list(reversed(mutants)), {}, []
    while waiting or running:
        while waiting and len(running) < (os.cpu_count() or 1):
            mutant = waiting.pop()
            running[start(target, mutant)] = mutant
        pid, status = os.wait()
        mutant = running.pop(pid)
        if status == 0:
            survivors.append(mutant.name)
    return survivors


def passes(target: Target, mutant: Mutant) -> bool:
    """Return whether the tests of the target pass with the mutant."""
    return os.waitpid(start(target, mutant), 0)[1] == 0


def start(target: Target, mutant: Mutant) -> int:
    """Start the target's tests with the mutant in a child process, and return its id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        faulthandler.dump_traceback_later(MAX_MUTANT_S, exit=True)
        sys.meta_path.insert(0, MutatedModule(target.path, mutant))
        options = ["-x", "--assert=plain", "-p", "no:cacheprovider", "-o", f"timeout={MAX_TEST_S}"]
        options += ["--hypothesis-profile=mutants"]
        deselected = [f"--deselect={test}" for test in target.without]
        status = pytest.main([*options, *deselected, *target.tests])
    finally:
        os._exit(int(status))


if __name__ == "__main__":
    sys.exit(main(parts_of(sys.argv[1:])))
