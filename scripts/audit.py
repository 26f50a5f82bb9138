"""Known vulnerabilities among what constraints.txt pins, as PyPI's advisories tell them.

    python -m scripts.audit

Exit status 1 if there are any. Where no advisories can be had (a mirror of the index has none), a line says
how many packages that leaves unaudited: run it again where pypi.org answers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final


if TYPE_CHECKING:
    from collections.abc import Sequence

PINS: Final = Path(__file__).parents[1] / "constraints.txt"
TIMEOUT_S: Final = 300


def main(arguments: Sequence[str] = ()) -> int:
    """Audit the pins, print what was found, and return the exit status."""
    argparse.ArgumentParser(
        prog="python -m scripts.audit", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    ).parse_args(arguments)
    dependencies = _audited(PINS)
    lines = told(dependencies)
    print(*lines, sep="\n")
    return int(any(each.get("vulns") for each in dependencies))


def told(dependencies: list[dict[str, Any]]) -> list[str]:
    """Return a line for each vulnerability of *dependencies*, pip-audit's report, and one that sums up."""
    lines = [
        f"{each['name']} {each['version']}: {fault['id']}, {_mended(fault['fix_versions'])}"
        for each in dependencies
        for fault in each.get("vulns", [])
    ]
    unaudited = [each["name"] for each in dependencies if "skip_reason" in each]
    audited = len(dependencies) - len(unaudited)
    lines.append(f"audited {audited} of {len(dependencies)} pinned packages: {len(lines)} vulnerabilities")
    if unaudited:
        lines.append(f"NOT audited, for want of advisories: {len(unaudited)}; run it where pypi.org answers")
    return lines


def _mended(versions: list[str]) -> str:
    return f"mended in {versions[0]}" if versions else "not mended yet"


def _audited(pins: Path) -> list[dict[str, Any]]:
    """Return pip-audit's report; where it cannot ask at all, every pin as skipped."""
    command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--format=json"]
    done = subprocess.run(  # noqa: S603  our own command
        [*command, "--progress-spinner=off", "--requirement", pins],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    try:
        dependencies: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        print(*done.stderr.strip().splitlines()[-1:], sep="\n")
        lines = pins.read_text(encoding="utf-8").splitlines()
        return [{"name": line.split("==")[0], "skip_reason": "no answer"} for line in lines if "==" in line]
    return dependencies


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
