"""`python -m tests.corpus [FOLDER...]`: hostile images through the worker. Exit status 1 if it gives way.

Sends generated attacks, and every file below the folders, whatever it is called. `--cpus N` sizes the worker
for a machine of N cores, though it has one; `--only WORD` leaves out the groups whose names lack the word.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections import defaultdict
from functools import partial
from pathlib import Path

from tests.corpus import attacks
from tests.corpus.examination import TITLE, examine, storm
from tests.corpus.subject import MAX_SENT_BYTES, subject


AT_ONCE = "at once"


def main():
    """Run what the command line asks for; return the exit status."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the worker must not outlive this process
    violations = []
    makers = attacks.GROUPS | dict(folders(options.folders))
    chosen = [name for name in (*makers, AT_ONCE) if options.only in name]
    if not chosen:
        sys.exit(f"no group has {options.only!r} in its name; there are: {', '.join((*makers, AT_ONCE))}")
    print(TITLE)
    with subject(options.cpus) as worker:
        for group in filter(makers.get, chosen):
            violations += _told(examine(worker, group, makers[group]()))
        if AT_ONCE in chosen:
            for findings in storm(worker, attacks.crowds()):
                violations += _told(findings)
    print(*violations or ["every file was answered, within all limits"], sep="\n")
    return bool(violations)


def folders(roots):
    """Yield every folder below *roots* that has files, and what reads their contents by name."""
    for root in (Path(name).resolve() for name in roots):
        found = defaultdict(list)
        for path in sorted(root.rglob("*")):
            if path.is_file():
                found[path.parent].append(path)
        if not found:
            sys.exit(f"there is no file below {root}")
        for folder, paths in found.items():
            yield printable(str(folder.relative_to(root.parent))), partial(_contents, paths)


def _contents(paths):
    contents = {}
    for path in paths:
        with path.open("rb") as file:
            contents[printable(path.name)] = file.read(MAX_SENT_BYTES)
    return contents


def printable(name):
    """Return *name* without what a console cannot show."""
    return name.encode("ascii", "backslashreplace").decode()


def _told(findings):
    print(findings.line(), flush=True)
    return [f"{findings.group}: {violation}" for violation in findings.violations]


def _options():
    parser = argparse.ArgumentParser(prog="python -m tests.corpus", description=__doc__)
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="send every file below it as well")
    parser.add_argument("--cpus", type=int, default=1, metavar="N", help="size the worker for N cores (1)")
    parser.add_argument("--only", default="", metavar="WORD", help="only groups that have WORD in their name")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
