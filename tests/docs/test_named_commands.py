"""What the repository tells people to type exists: commands, make's targets, and what pip can install."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from deploy.__main__ import main as deploy
from embedding.__main__ import main as embedding


ROOT = Path(__file__).parents[2]
FOLDERS = (".github", ".runpod", "bench", "deploy", "docs", "embedding", "examples", "scripts", "tests")
TEXTS = {".md", ".py", ".sh", ".toml", ".txt", ".yml", ".html", ""}
# `make X` is a command where it stands as code; elsewhere "make" is a verb.
FORMS = {
    "embedding": r"python3? -m embedding\s+([a-z][\w-]*)",
    "deploy": r"python3? -m deploy\s+([a-z][\w-]*)",
    "make": r"(?:`|\$ )(?:[A-Z_]+=\S+ )*make ([a-z][\w-]*)",
    "extra": r"pip install [^\n`]*?\.\[([\w,-]+)\]",
}


def files():
    """Return every text file of the repository but this one."""
    paths = [*ROOT.iterdir(), *(path for name in FOLDERS for path in (ROOT / name).rglob("*"))]
    return [path for path in paths if path.suffix in TEXTS and path.is_file() and path != Path(__file__)]


def named(kind):
    """Return each name that follows the form *kind* somewhere, with the files that have it."""
    found = {}
    for path in files():
        for match in re.finditer(FORMS[kind], path.read_text(encoding="utf-8", errors="ignore")):
            for name in match[1].split(","):
                found.setdefault(name, []).append(str(path.relative_to(ROOT)))
    return found


def commands_of(main, capsys):
    """Return the commands that the help of *main* lists."""
    with pytest.raises(SystemExit):
        main(["--help"])
    return set(re.findall(r"^    ([a-z-]+)", capsys.readouterr().out, re.MULTILINE))


def targets():
    """Return the targets of the Makefile."""
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def extras():
    """Return what `pip install '.[…]'` can bring."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    dynamic = project["tool"]["setuptools"]["dynamic"]["optional-dependencies"]
    return set(dynamic)


@pytest.mark.parametrize(("kind", "main"), [("embedding", embedding), ("deploy", deploy)])
def test_commands_exist(kind, main, capsys):
    """Every command that is named is one."""
    told, known = named(kind), commands_of(main, capsys)

    assert known <= set(told), "a command that nothing speaks of"
    assert {name: where for name, where in told.items() if name not in known} == {}


@pytest.mark.parametrize(("kind", "known"), [("make", targets), ("extra", extras)])
def test_targets_and_extras_exist(kind, known):
    """Every target and every extra that is named is one."""
    told = named(kind)

    assert told
    assert {name: where for name, where in told.items() if name not in known()} == {}


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("embedding", "`python -m embedding nothing`"),
        ("make", "$ make nothing"),
        ("make", "`make nothing ARGS=1`"),
        ("extra", "pip install '.[nothing]'"),
        ("extra", "pip install -e '.[worker,nothing]'"),
    ],
)
def test_forms_find_what_does_not_exist(kind, text):
    """A name that nobody made would be found."""
    assert "nothing" in re.search(FORMS[kind], text)[1].split(",")
