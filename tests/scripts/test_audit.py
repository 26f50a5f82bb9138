"""The audit of dependencies tells what it found, and what it could not ask."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from scripts import audit


FAULT = {"id": "PYSEC-2026-1", "fix_versions": ["2.0.1", "3.0"], "aliases": []}
SOUND = {"name": "a", "version": "1.0", "vulns": []}
SKIPPED = {"name": "b", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("dependencies", "status", "lines"),
    [
        ([SOUND], 0, ["audited 1 of 1 pinned packages: 0 vulnerabilities"]),
        (
            [{**SOUND, "vulns": [FAULT, {**FAULT, "fix_versions": []}]}],
            1,
            [
                "a 1.0: PYSEC-2026-1, mended in 2.0.1",
                "a 1.0: PYSEC-2026-1, not mended yet",
                "audited 1 of 1 pinned packages: 2 vulnerabilities",
            ],
        ),
        (
            [SOUND, SKIPPED],
            0,
            [
                "audited 1 of 2 pinned packages: 0 vulnerabilities",
                "NOT audited, for want of advisories: 1; run it where pypi.org answers",
            ],
        ),
    ],
    ids=["sound", "vulnerable", "not all"],
)
def test_report(monkeypatch, capsys, dependencies, status, lines):
    """Each vulnerability is a line and makes it fail; what was not audited is never left unsaid."""
    monkeypatch.setattr(audit, "_audited", lambda _pins: dependencies)

    assert audit.main() == status
    assert capsys.readouterr().out.splitlines() == lines


@pytest.mark.parametrize("output", ["", "Traceback", json.dumps({"dependencies": [SOUND]})])
def test_index_that_does_not_answer(monkeypatch, tmp_path, capsys, output):
    """Where the tool gives no report, every pinned package counts as unaudited."""
    pins = tmp_path / "constraints.txt"
    pins.write_text("# pins\na==1.0\nb==2.0  # why\n", encoding="utf-8")
    monkeypatch.setattr(audit, "PINS", pins)
    done = subprocess.CompletedProcess([], 1, stdout=output, stderr="")
    monkeypatch.setattr(audit.subprocess, "run", lambda *_args, **_options: done)

    assert audit.main() == 0
    assert ("audited 0 of 2" in capsys.readouterr().out) is not output.startswith("{")


def test_pip_audit_is_there():
    """The tool that the audit asks is installed."""
    done = subprocess.run([sys.executable, "-m", "pip_audit", "--version"], check=True, capture_output=True)

    assert done.stdout.startswith(b"pip-audit ")
