"""The table: each figure beside its target, on the console, as JSON, and in BENCHMARKS.md."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final


if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_MET: Final = {True: "yes", False: "NO", None: ""}


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. *met* is None where there is no target; *value* is None where the measure failed."""

    name: str
    what: str
    value: float | None
    unit: str
    target: str
    met: bool | None
    detail: str

    @property
    def shown(self) -> str:
        """The value as people read it."""
        return "failed" if self.value is None else f"{_number(self.value)} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Measure:
    """What a row says, by its short name; *limit* is None where it is only told."""

    name: str
    what: str
    unit: str
    limit: float | None = None
    at_least: bool = False

    def row(self, value: float, detail: str, *, limit: float | None = None) -> Row:
        """Return the row of *value*; *limit* stands in for one that only the run can know."""
        limit = self.limit if limit is None else limit
        if limit is None:
            return Row(self.name, self.what, value, self.unit, "", None, detail)
        met = value >= limit if self.at_least else value <= limit
        target = f"{'≥' if self.at_least else '≤'} {_number(limit)} {self.unit}".rstrip()
        return Row(self.name, self.what, value, self.unit, target, met, detail)

    def failed(self, why: str) -> Row:
        """Return the row of a measure that could not be taken."""
        return Row(self.name, self.what, None, self.unit, "", None, f"failed: {why}")


def table(rows: Sequence[Row]) -> str:
    """Return *rows* as lines for a console."""
    cells = [("measure", "value", "target", "met", "figures")]
    cells += [(row.name, row.shown, row.target, _MET[row.met], f"{row.what}: {row.detail}") for row in rows]
    return aligned(cells)


def aligned(cells: Sequence[Sequence[str]]) -> str:
    """Return lines whose columns begin at the same places."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)
    return "\n".join(line.rstrip() for line in lines)


def to_json(
    rows: Sequence[Row], machine: Mapping[str, Any], jobs_per_s: Mapping[str, Sequence[float]]
) -> str:
    """Return everything as one JSON document; *jobs_per_s* holds the rounds of each party."""
    document = {"machine": machine, "rows": [asdict(row) for row in rows], "jobs_per_s": jobs_per_s}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def markdown(rows: Sequence[Row], machine: Mapping[str, Any]) -> str:
    """Return the machine and *rows* as Markdown."""
    about = "\n".join(f"- {name}: {value}" for name, value in machine.items())
    lines = ["| measure | | value | target | met | figures |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        cells = (f"`{row.name}`", row.what, row.shown, row.target, _MET[row.met], row.detail)
        lines.append(f"| {' | '.join(cells)} |")
    return f"{about}\n\n" + "\n".join(lines)


def write_section(file: Path, name: str, text: str) -> None:
    """Put *text* between the markers of section *name* in *file*; file and section are made where missing."""
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    old = file.read_text(encoding="utf-8") if file.exists() else "# Benchmarks\n"
    if begin not in old or end not in old:
        old = f"{old}\n{begin}\n{end}\n"
    before, _, rest = old.partition(begin)
    after = rest.partition(end)[2]
    file.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}", encoding="utf-8")


def _number(value: float) -> str:
    """Return *value* with three digits that count, or all before the point."""
    if abs(value) >= 100:  # noqa: PLR2004  three digits
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".") if value else "0"
