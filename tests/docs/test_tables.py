"""The tables of the documents are complete: settings, dependencies, codes, modules and refusals."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from pathlib import Path

import pytest

from embedding.errors import WorkerError
from embedding.settings import ClientSettings, Settings


ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BENCHMARKS = (ROOT / "BENCHMARKS.md").read_text(encoding="utf-8")
LOCAL_TESTING = (ROOT / "LOCAL_TESTING.md").read_text(encoding="utf-8")
SETTINGS = (ROOT / "docs" / "SETTINGS.md").read_text(encoding="utf-8")
POD = (ROOT / "POD.md").read_text(encoding="utf-8")
MIN_TELLING_CHARS = 8


def first_cells(text, header):
    """Return the first cell of every row of the table of *text* that begins with *header*."""
    table = text[text.index(f"| {header} |") :].split("\n\n")[0]
    return [row.split(" | ")[0].lstrip("| ") for row in table.splitlines()[2:]]


def codes(kind):
    """Return the codes of an error class and of all below it."""
    return {kind.code} | {code for sub in kind.__subclasses__() for code in codes(sub)}


def start_up_messages():
    """Return every message that a StartupError is raised with, as its constant pieces."""
    for path in sorted((ROOT / "embedding").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (
                isinstance(node, ast.Call) and getattr(node.func, "id", "") in {"StartupError", "TooCoarse"}
            ):
                continue
            parts = [n.value for n in ast.walk(node.args[0]) if isinstance(n, ast.Constant)]
            pieces = [part for part in parts if isinstance(part, str) and len(part) >= MIN_TELLING_CHARS]
            if pieces:
                yield pytest.param(pieces, id=f"{path.name}:{node.lineno}")


def test_every_setting_is_told():
    """The table of settings has every variable that is read, and no other."""
    told = set(re.findall(r"`([A-Z_]+)`", " ".join(first_cells(SETTINGS, "variable"))))
    platform = {"RUNPOD_WEBHOOK_GET_JOB", "RUNPOD_ENDPOINT_ID", "RUNPOD_REALTIME_PORT"}

    assert told | platform == {field.alias for field in Settings.model_fields.values()}
    assert all(f"`{name}`" in SETTINGS for name in platform)


def test_every_setting_of_a_client_is_in_the_readme():
    """The README's table has every variable that `client_from_env` reads, and no other."""
    told = set(re.findall(r"`([A-Z_]+)`", " ".join(first_cells(README, "client's variable"))))

    assert told == {field.alias for field in ClientSettings.model_fields.values()}


def test_a_pods_variables_are_settings():
    """What POD.md lets a Pod be made of is JSON, and every variable in it is one that is read."""
    pod = json.loads(re.search(r"^```text\n(\{.*?^\})$", POD, re.MULTILINE | re.DOTALL)[1])

    assert set(pod["env"]) <= {field.alias for field in Settings.model_fields.values()}
    assert pod["ports"] == [f"{Settings().port}/http"]


def test_every_dependency_has_its_reason():
    """The README's table has what worker, client, bulk and deploy need; all but the client's are pinned."""
    files = [ROOT / name for name in ("requirements.txt", "requirements-bulk.txt", "deploy/requirements.txt")]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    pins = {line for line in lines if line and not line.startswith("#")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    client = {need.split(">=")[0] for need in project["dependencies"]}
    told = set(re.findall(r"`([a-z0-9-]+)`", " ".join(first_cells(README, "dependency"))))

    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+", pin) for pin in pins)
    assert told == {pin.split("==")[0] for pin in pins} | client
    assert len(told) == len(pins)


def test_every_claim_of_speed_is_measured():
    """Each figure in the README's table of speed is that of the measure it names, in BENCHMARKS.md."""
    measured = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|", BENCHMARKS, re.MULTILINE))
    table = README[README.index("| what | figure | measure |") :].split("\n\n")[0]
    claimed = re.findall(r"\| ([^|]+) \| `(\w+)` \|$", table, re.MULTILINE)

    assert claimed
    assert [(value, name) for value, name in claimed if measured.get(name) != value] == []


def test_every_module_is_on_the_map():
    """The README's maps lead to every module of the worker, by itself or by its folder."""
    tables = [f"| module |{rest}" for rest in README.split("| module |")[1:]]
    cells = [cell for table in tables for cell in first_cells(table, "module")]
    told = re.findall(r"\]\(([^)]+)\)", " ".join(cells))
    mapped = {ROOT / link for link in told}
    modules = [path for path in (ROOT / "embedding").rglob("*.py") if path.name != "__init__.py"]

    assert len(told) == len(mapped)
    assert [path for path in modules if not mapped & {path, *path.parents}] == []


def test_every_error_code_is_in_the_readme():
    """The README's table has every code, and no other."""
    assert {cell.strip("`") for cell in first_cells(README, "code")} == codes(WorkerError)


@pytest.mark.parametrize(
    "path", [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")], ids=lambda path: str(path.relative_to(ROOT))
)
def test_every_link_leads_somewhere(path):
    """Each file or folder that a document links to exists."""
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))

    assert [link for link in links if "://" not in link and not (path.parent / link).exists()] == []


@pytest.mark.parametrize("pieces", [*start_up_messages()])
def test_every_refusal_is_explained(pieces):
    """LOCAL_TESTING.md's first table quotes a telling piece of every line that a start can fail with."""
    quoted = re.findall(r"`([^`]+)`", " ".join(first_cells(LOCAL_TESTING, "the line says")))

    assert any(quote in piece for piece in pieces for quote in quoted), pieces


def test_every_metric_that_is_named_is_told():
    """POD.md's table names only metrics that the service's modules make."""
    modules = ("metrics.py", "scrape.py")
    made = "".join((ROOT / "embedding/serve/http" / name).read_text(encoding="utf-8") for name in modules)
    names = re.findall(r"`(clip_[a-z_]+[a-z])`", " ".join(first_cells(POD, "metric")))

    assert len(names) >= 14
    assert [name for name in names if f'"{re.sub("_(total|info)$", "", name)}"' not in made] == []
