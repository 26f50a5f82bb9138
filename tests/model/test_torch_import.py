"""torch without what only its compiler asks for: as good to compute with, and whole again when asked."""

from __future__ import annotations

import subprocess
import sys

import pytest


IMPORT = "from embedding.model.torch_import import import_torch; import_torch(); import sys, torch; "


def run(program):
    """Return what *program* prints in a fresh interpreter, once torch is imported."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT + program], capture_output=True, text=True, timeout=100, check=True
    )
    return done.stdout.split()


def test_what_is_left_out():
    """Neither the registrations nor the Python twins that they import are there, and nothing needs them.

    Modules are still made without data, as the loader makes them.
    """
    left_out = ("torch._meta_registrations", "torch._decomp", "torch._refs", "torch._prims")
    made = "torch.set_default_device('meta'); print(torch.nn.MultiheadAttention(8, 2).in_proj_weight.shape); "
    told = run(f"{made}print([name for name in {left_out} if name in sys.modules])")

    assert "".join(told) == "torch.Size([24,8])[]"


def test_whole_again():
    """Once what was left out is imported, a model can be exported."""
    program = (
        "import torch._meta_registrations; "
        "model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.GELU()); "
        "x = torch.randn(1, 3, 8, 8); "
    )
    check = "print(torch.equal(torch.export.export(model, (x,)).module()(x), model(x)))"

    assert run(program + check) == ["True"]


@pytest.mark.parametrize("version", ["2.12.0"])
def test_other_versions_are_imported_whole(version):
    """A version that this was not written for is left alone."""
    before = f"from importlib import metadata; metadata.version = lambda _name: {version!r}; "
    done = subprocess.run(
        [sys.executable, "-c", f"{before}{IMPORT}print('torch._meta_registrations' in sys.modules)"],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )

    assert done.stdout.strip() == "True"
