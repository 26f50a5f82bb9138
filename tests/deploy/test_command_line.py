"""The command line itself: its help, what it needs, and what it shows on a terminal."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from deploy.__main__ import main
from deploy.console import Console
from deploy.flags import OVERRIDES, overrides_of, parser
from tests.deploy.conftest import ROOT, SECRET


COMMANDS = ["apply", "status", "smoke", "rollback", "destroy", "cost"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(command, capsys):
    """Each command says what it does and what every flag means."""
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])

    told = capsys.readouterr().out
    assert left.value.code == 0
    assert f"usage: python -m deploy {command}" in told
    assert len(told.split("\n\n")[1]) > 100


def test_needs_neither_torch_nor_numpy():
    """A pipeline deploys from an environment of a few megabytes."""
    modules = ", ".join(f"deploy.{path.stem}" for path in (ROOT / "deploy").glob("*.py"))
    program = f"import sys, {modules}; sys.exit(bool(sys.modules.keys() & {{'torch', 'numpy', 'runpod'}}))"

    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def test_every_flag_sets_its_key():
    """A flag is there for each key that it can take the place of."""
    values = {"image": "i", "gpu-pools": "A, B", "data-center": "EU-RO-1"}
    line = [word for flag in OVERRIDES for word in (f"--{flag}", values.get(flag, "7"))]
    given = overrides_of(parser().parse_args(["apply", "production", *line]))

    assert given == {key: 7 for key, _, _ in OVERRIDES.values()} | {
        "image": "i", "gpu.pools": ["A", "B"], "data_centers": ["EU-RO-1"]
    }  # fmt: skip


def test_faults_are_lines_and_no_traceback():
    """What the user can mend ends in a few lines on stderr and exit status 1."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RUNPOD_")}
    command = [sys.executable, "-m", "deploy", "apply", "nowhere"]
    done = subprocess.run(command, cwd=ROOT, env=kept, capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "error: there is no environment nowhere\nhint: copy example.toml; there are: "
    )


SECONDS = [
    ("--wait-s", ["0", "604800"], ["-0.1", "604801", "inf", "nan", "soon"]),
    ("--poll-s", ["0.01", "3600"], ["0", "-1", "3601", "nan"]),
]


@pytest.mark.parametrize(("flag", "good", "bad"), SECONDS)
def test_seconds(flag, good, bad, capsys):
    """A wait has bounds, and what is none ends with the flag's name."""
    for text in good:
        parser().parse_args(["apply", "production", flag, text])
    for text in bad:
        with pytest.raises(SystemExit):
            parser().parse_args(["apply", "production", f"{flag}={text}"])
        assert f"argument {flag}: give " in capsys.readouterr().err


@pytest.mark.parametrize("key", ["rpa_two\nlines", "rpa_ü", "rpa two"])
def test_a_key_that_no_header_can_hold(deploy, api, monkeypatch, key):
    """It is told at once, and not sent."""
    monkeypatch.setenv("RUNPOD_API_KEY", key)
    done = deploy.apply()

    assert (done.status, api.requests) == (1, [])
    assert "error: the API key or token has a space, a line break or a sign that is not ASCII" in done.err


def test_a_log_that_takes_ascii_only(deploy, api, worker):
    """Ticks become question marks, and the deployment goes on."""
    done = subprocess.run(
        deploy.command(*deploy.arguments("apply", "--yes")),
        cwd=ROOT,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
    )

    assert (done.returncode, done.stderr) == (0, b"")
    assert b"? identity as expected" in done.stdout


def test_a_summary_that_cannot_be_written_is_told_first(deploy, api):
    """Before anything is sent."""
    done = deploy.apply("--summary", str(deploy.folder / "no" / "such" / "file"))

    assert (done.status, api.changes) == (1, [])
    assert "error: the summary cannot be written: No such file or directory" in done.err


class Terminal(io.StringIO):
    """What a terminal is to a program."""

    def isatty(self):
        return True


def test_a_terminal_gets_a_line_that_changes(monkeypatch):
    """The state of a wait stands in one line, with the time it has taken, and holds no secret."""
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("sys.stdout", terminal)
    console = Console()
    console.hide([f"default:{SECRET}"])
    with console.waiting("a worker") as tell:
        tell(f"[red] {SECRET}")
    console.say(SECRET, style="green")

    assert "[red] (secret) " in terminal.getvalue()
    assert "0:00:00" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[32m(secret)\x1b[0m\n")
    assert SECRET not in terminal.getvalue()
