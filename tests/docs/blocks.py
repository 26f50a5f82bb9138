"""The blocks of a Markdown file that make a claim, and how what happened is held against them.

    ```console        commands after `$ `, each followed by what it prints; run in the repository
    ```console runpod the same, in a checkout of its own, beside an account at a RunPod on loopback
    ```console server a command that stays; it is stopped at the end of its section
    ```python         a script, run in the repository
    ```python output  what the script before prints
    ```javascript     a function, tried in Node
    ```json request   a job, run through the worker
    ```json answer    what the job before is answered
    ```text           a message or a file that another test checks; not run

In expected output `…` stands for anything within a line, and a line of `…` for any lines. In an answer a
string `…` stands for any string, a fraction for any fraction, and a list of them for the beginning of one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


_BLOCK = re.compile(r"^```(?P<kind>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
SCRIPTS = {"python", "python output", "javascript"}
KINDS = {"console", "console runpod", "console server", "json request", "json answer", "text"} | SCRIPTS


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: its info string, its text, the line it begins on, and its section's heading."""

    kind: str
    body: str
    line: int
    section: str


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a console block, and what it is said to print."""

    line: str
    expected: str


def blocks_of(text: str) -> list[Block]:
    """Return the fenced blocks of a Markdown *text*, in order."""
    found = []
    for match in _BLOCK.finditer(text):
        before = text[: match.start()]
        headings = re.findall(r"^#+ (.*)$", _BLOCK.sub("", before), re.MULTILINE)
        section = headings[-1] if headings else ""
        found.append(Block(match["kind"], match["body"], before.count("\n") + 1, section))
    return found


def commands_of(block: Block) -> list[Command]:
    """Return the commands of a console block; one that ends in a backslash goes on in the next line."""
    pieces = re.split(r"^\$ ", block.body, flags=re.MULTILINE)[1:]
    commands = []
    for piece in pieces:
        lines = piece.splitlines()
        size = 1
        while lines[size - 1].endswith("\\"):
            size += 1
        commands.append(Command("\n".join(lines[:size]), "\n".join(lines[size:])))
    return commands


def prints(expected: str, actual: str) -> bool:
    """Return whether *actual* output is what *expected* says, where `…` stands for anything."""
    if not expected.strip():
        return not actual.strip()
    pattern = ""
    for line in expected.strip().splitlines():
        if line.strip() == "…":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += r"[^\n]*".join(re.escape(part) for part in line.rstrip().split("…")) + r"[ ]*\n"
    return re.fullmatch(pattern, actual.strip() + "\n") is not None


def agrees(expected: object, actual: object) -> bool:
    """Return whether *actual* JSON has the shape and the values that *expected* shows."""
    if isinstance(expected, dict):
        return (
            isinstance(actual, dict)
            and expected.keys() == actual.keys()
            and all(agrees(value, actual[key]) for key, value in expected.items())
        )
    if isinstance(expected, list) and expected and isinstance(expected[0], float):
        return isinstance(actual, list) and all(
            abs(one - other) < 0.01 for one, other in zip(expected, actual, strict=False)
        )
    if isinstance(expected, list):
        return (
            isinstance(actual, list)
            and len(expected) == len(actual)
            and all(agrees(one, other) for one, other in zip(expected, actual, strict=True))
        )
    if isinstance(expected, float):
        return isinstance(actual, float)
    return expected in ("…", actual)
