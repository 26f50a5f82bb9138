"""The shape of the house: which way imports point, and how large a room may grow."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "embedding"
DEPLOY = ROOT / "deploy"
FOLDERS = (PACKAGE, ROOT / "scripts", ROOT / "bench", DEPLOY)
SHIPPED = [ROOT / "handler.py", *(path for folder in FOLDERS for path in folder.rglob("*.py"))]
MODULES = [pytest.param(path, id=str(path.relative_to(ROOT))) for path in sorted(SHIPPED)]

MAX_MODULE_LINES = 300
MAX_FUNCTION_LINES = 40
MAX_HANDLER_LINES = 40

# Each layer may import itself and those to its right; whatever is not named stands on its own.
LAYERS = {
    "client": {"contract", "settings", "errors"},
    "serve": {
        "actions",
        "operator",
        "cached_pipeline",
        "pipeline",
        "self_test",
        "intake",
        "model",
        "contract",
        "settings",
        "errors",
    },
    "actions": {"pipeline", "self_test", "operator", "contract", "errors"},
    "operator": {"model", "contract", "errors"},
    "cached_pipeline": {"pipeline", "cache", "intake", "model", "contract"},
    "pipeline": {"intake", "model", "contract", "errors"},
    "self_test": {"model", "errors"},
    "model": {"intake", "errors"},
    "intake": {"errors"},
    "contract": {"errors"},
    "settings": {"errors"},
    "cache": set(),
    "errors": set(),
}
# `embed --local` is the worker in a caller's process; it imports the worker when it is made.
WORKERS_OF_CALLERS = {PACKAGE / "client/bulk/local.py": {"serve", "intake"}}


def imports_of(path):
    """Return the names of our own layers that *path* imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("embedding.")} & set(LAYERS)


def layer_of(path):
    """Return the layer that *path* belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", MODULES)
class TestModules:
    def test_imports_point_one_way(self, path):
        """A layer imports only the layers below it."""
        if not path.is_relative_to(PACKAGE) or layer_of(path) not in LAYERS:
            return
        layer = layer_of(path)

        assert imports_of(path) <= LAYERS[layer] | {layer} | WORKERS_OF_CALLERS.get(path, set())

    def test_are_short(self, path):
        """No module is longer than 300 lines."""
        assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_MODULE_LINES

    def test_functions_are_short(self, path):
        """No function is longer than 40 lines."""
        functions = [
            node
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        long = [f.name for f in functions if (f.end_lineno or 0) - f.lineno + 1 > MAX_FUNCTION_LINES]

        assert long == []

    def test_environment_is_read_in_one_place(self, path):
        """Only settings.py reads the environment, and for deployments their command line."""
        reads = "os.environ" in path.read_text(encoding="utf-8")

        assert not reads or path in {PACKAGE / "settings.py", DEPLOY / "__main__.py"}


def test_deployments_need_the_contract_alone():
    """deploy/ imports embedding.contract and embedding.errors, and nothing else of the worker."""
    layers = set().union(*(imports_of(path) for path in DEPLOY.rglob("*.py")))

    assert layers <= {"contract", "errors"}


def test_only_signatures_ask_for_the_date():
    """A clock that is set, back or forth, ends no download and no job: all else counts monotonic time."""
    asks = re.compile(r"\btime\.time\b|\bdatetime\b|\blocaltime\b|\bgmtime\b")
    reads = {path for path in PACKAGE.rglob("*.py") if asks.search(path.read_text(encoding="utf-8"))}

    assert reads == {PACKAGE / "contract" / "signatures.py"}


def test_handler_is_short():
    """handler.py has fewer than 40 lines."""
    assert len((ROOT / "handler.py").read_text(encoding="utf-8").splitlines()) < MAX_HANDLER_LINES


def test_broad_excepts_stand_only_at_edges():
    """`except Exception` stands at the edges of queue, HTTP, device thread and walk, nowhere else."""
    broad = {
        path.relative_to(PACKAGE).as_posix()
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or getattr(node.type, "id", "") in {"Exception", "BaseException"})
    }

    assert broad == {"model/engine.py", "serve/queue.py", "serve/http/service.py", "client/bulk/walk.py"}


@pytest.mark.parametrize("layer", ["client", "contract", "errors", "settings"])
def test_light_layers_do_without_torch(layer):
    """A client never pays for torch."""
    modules = [
        "embedding." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        if layer_of(path) == layer and path.name != "__init__.py"
    ]
    program = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
