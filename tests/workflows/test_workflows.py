"""The workflows pass what `make check` holds them to, and a broken one does not."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from deploy import flags
from scripts import workflows


ROOT = Path(__file__).parents[2]
PINNED = re.compile(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+){2}$")

HEAD = """
name: planted
on: push
permissions: {}
concurrency: {group: planted, cancel-in-progress: true}
jobs:
  job:
    name: planted
    runs-on: ubuntu-24.04
    timeout-minutes: 5
    steps:
"""
CHECKOUT = "actions/checkout@de0fac2e4500dabe0009e67214ff5f5447ce83dd # v6.0.2"
# A workflow that is wrong in one thing each, and what is said of it.
PLANTED = {
    "syntax": (HEAD + "      - run: 'true'\n        foo: 1\n", 'unexpected key "foo"'),
    "needs": (
        HEAD.replace("    steps", "    needs: [gone]\n    steps") + "      - run: 'true'\n",
        'needs job "gone"',
    ),
    "expression": (HEAD + "      - run: 'true'\n        if: inputs.x == steps.gone.outputs.y\n", '"gone"'),
    "unpinned": (
        HEAD + "      - uses: actions/checkout@v6\n        with: {persist-credentials: false}\n",
        "unpinned-uses",
    ),
    "credentials": (HEAD + f"      - uses: {CHECKOUT}\n", "artipacked"),
    "permissions": (
        HEAD.replace("permissions: {}", "permissions: write-all") + "      - run: 'true'\n",
        "excessive-permissions",
    ),
    "injection": (HEAD + "      - run: echo '${{ github.sha }}'\n", "injection.yml: job, step 1: ${{ }}"),
    "shell": (HEAD + "      - run: |\n          cd $HOME/x\n          rm -r y\n", "that was shell.yml: job"),
}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What is printed of all planted workflows; they are checked together, which takes as long as one."""
    folder = tmp_path_factory.mktemp("workflows")
    for name, (text, _) in PLANTED.items():
        (folder / f"{name}.yml").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "scripts.workflows", folder], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    return done.stdout


def test_ours_pass(capsys):
    """The repository's workflows and scripts have no fault."""
    status = workflows.main([])

    assert capsys.readouterr().out == ""
    assert status == 0


@pytest.mark.parametrize("name", PLANTED)
def test_a_broken_one_is_named(told, name):
    """Each planted fault is found, in the file where it is."""
    assert f"{name}.yml" in told
    assert PLANTED[name][1] in told


def test_the_plants_are_broken_in_one_thing(tmp_path, capsys):
    """What the planted workflows have in common is right."""
    (tmp_path / "right.yml").write_text(HEAD + "      - run: 'true'\n", encoding="utf-8")

    assert (workflows.main([str(tmp_path)]), capsys.readouterr().out) == (0, "")


def test_no_workflows_is_a_fault(tmp_path):
    """A folder without workflows does not pass as one without faults."""
    assert workflows.main([str(tmp_path)]) == 1


@pytest.mark.parametrize("path", sorted(workflows.WORKFLOWS.glob("*.yml")), ids=lambda path: path.stem)
class TestOurs:
    def test_actions_are_pinned(self, path):
        """Each action is named by commit, and its version beside it."""
        used = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if "uses:" in line]

        assert used
        assert [line for line in used if not PINNED.fullmatch(line.removeprefix("- "))] == []

    def test_jobs_may_little_and_end(self, path):
        """Nothing is permitted but reading the repository, and each job has a time limit."""
        document = yaml.safe_load(path.read_text(encoding="utf-8"))

        assert document["permissions"] == {}
        for job in document["jobs"].values():
            assert job["permissions"] == {"contents": "read"}
            assert 0 < job["timeout-minutes"] <= 90

    def test_scripts_are_there(self, path):
        """What a step runs from this repository is in it and may be run."""
        text = path.read_text(encoding="utf-8")
        for script in re.findall(r"(?:scripts|\.ci)/[\w.]+", text):
            assert (ROOT / script).stat().st_mode & 0o100


def test_deploys_by_flags_that_are_there():
    """Every flag that the deploy workflow gives is one of the command's."""
    deploy = yaml.safe_load((workflows.WORKFLOWS / "deploy.yml").read_text(encoding="utf-8"))
    given = {
        "IMAGE": "org/clip@sha256:0",
        "GPU_POOLS": "ADA_24",
        "TIMEOUT_S": "600",
        "DATA_CENTER": "EU-RO-1",
        "WAIT_S": "1800",
    }
    runs = [
        step["run"] for step in deploy["jobs"]["deploy"]["steps"] if "python -m deploy" in step.get("run", "")
    ]
    assert len(runs) == 3
    for run in runs:
        echoed = run.replace("python -m deploy", "printf '%s\\n'")
        words = subprocess.run(
            ["bash", "-euc", echoed],
            env=given | {"ENVIRONMENT": "production", "RECORD": "r1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()

        flags.parser().parse_args(words)


LOADED = """
import importlib, pkgutil, sys
import deploy
for module in pkgutil.iter_modules(deploy.__path__):
    if module.name != "__main__":
        importlib.import_module(f"deploy.{module.name}")
print(*{name.split(".")[0] for name in sys.modules if not name.startswith("_")})
"""


def test_deploy_installs_all_that_it_imports():
    """deploy/requirements.txt brings every package that the deploy command loads; torch is none of them."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = (ROOT / "deploy" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    brought = closure({line.split("==")[0] for line in lines if "==" in line})
    packages = metadata.packages_distributions()
    loaded = set(done.stdout.split()) - sys.stdlib_module_names - {"deploy", "embedding"}

    assert "httpx" in loaded
    assert not loaded & {"torch", "numpy", "runpod", "PIL"}
    assert {name for name in loaded if not set(map(normalized, packages.get(name, []))) & brought} == set()


def closure(names):
    """Return the distributions *names* and all that they may load: what they require, extras included."""
    found, todo = set(), set(names)
    while todo:
        name = todo.pop()
        found.add(name)
        try:
            required = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        todo |= {normalized(re.match(r"[\w.-]+", each)[0]) for each in required} - found
    return found


def normalized(name):
    """Return a distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
