"""The command line: `python -m bench` measures everything and prints one table.

The parties of a comparison take turns in this one run, since a shared machine is never equally fast twice.
A measure that fails becomes a row that says why, and the others go on.
"""

from __future__ import annotations

import argparse
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench import bulk, crowd, http_turns, loop, machine, report, search, stages, starting, throughput, urls
from bench.model import ROOT, run_python
from bench.plan import QUICK, Lengths, Plan


if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from bench.report import Measure, Row

MAX_WHY: Final = 300
INTERRUPTED: Final = 130  # what a shell reports after Ctrl-C
DOCUMENT: Final = ROOT / "BENCHMARKS.md"
PLOT: Final = ROOT / "bench" / "plots" / "throughput.svg"
ROUTES: Final = "preprocessing_routes"
NEEDS_PEER: Final = frozenset({throughput.VS_INFINITY.name, http_turns.VS_INFINITY.name})
EPILOG: Final = """\
examples:
  python -m bench                                   everything but Infinity
  python -m bench --only throughput_vs_ceiling      one measure
  python -m bench --quick                           does it run? figures are rough
  python -m bench --markdown --only bulk_queue_demo bulk_queue bulk_local_demo bulk_local \\
    search search_vs_memory                         one table of BENCHMARKS.md
  python -m bench --only preprocessing_routes       a table of ways to decode and resize, by format and size
"""


@dataclass(frozen=True, slots=True)
class Part:
    """Measures that are taken together, by one function; *about* says what happens and for how long.

    *section* is the one of BENCHMARKS.md that shows them.
    """

    about: str
    measures: Sequence[Measure]
    run: Callable[[Plan], list[Row]]
    section: str = "measures"


PARTS: Final = (
    Part(
        "serving from the queue and over HTTP, by turns with the bare forward and others (8 minutes)",
        throughput.MEASURES,
        throughput.measure,
    ),
    Part("starts, by turns (2 minutes)", starting.MEASURES, starting.measure),
    Part("preprocessing of VGA JPEGs (1 minute)", (stages.PREPROCESS,), stages.measure_preprocess),
    Part("32 texts (30 seconds)", (stages.TEXTS,), stages.measure_texts),
    Part("jobs of 16 URLs (1 minute)", urls.MEASURES, urls.measure),
    Part("the job loop with a free engine (20 seconds)", (loop.FREE,), loop.measure_free),
    Part("HTTP with a free engine (20 seconds)", (crowd.FREE,), crowd.measure_free),
    Part(f"{crowd.CALLERS} callers, every tenth request bad (1 minute)", crowd.MEASURES, crowd.measure),
    Part("the event loop's lag under load (30 seconds)", (loop.LAG,), loop.measure_lag),
    Part("bulk runs, by turns with what they could be (9 minutes)", bulk.MEASURES, bulk.measure, "bulk"),
    Part("search over a million vectors (1 minute)", search.MEASURES, search.measure, "bulk"),
    Part("many jobs (4 minutes)", loop.SOAKS, loop.measure_soak),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what *arguments* ask for; return the exit status."""
    options = _parser().parse_args(arguments)
    if options.list:
        print(report.aligned([(measure.name, measure.what) for part in PARTS for measure in part.measures]))
        print(f"{ROUTES}  (a table of its own)")
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # no worker outlives this process
    machine.use_cores(options.cores)
    try:
        if ROUTES in (options.only or []):
            _show_routes(options)
            options.only.remove(ROUTES)
            if not options.only:
                return 0
        return _run(options)
    except KeyboardInterrupt:
        print("interrupted; nothing is left running", file=sys.stderr)
        return INTERRUPTED


def _show_routes(options: argparse.Namespace) -> None:
    seconds = str((QUICK if options.quick else Lengths()).routes_s)
    print("ways to decode and resize, by turns on one core (1 minute)", file=sys.stderr, flush=True)
    shown = run_python("-m", "bench.preprocessing", "--seconds", seconds, *["--markdown"] * options.markdown)
    print(shown, end="")
    if options.markdown:
        report.write_section(DOCUMENT, ROUTES, shown)


def _run(options: argparse.Namespace) -> int:
    plan = _plan(options)
    about = machine.describe()
    rows: list[Row] = []
    parts = [part for part in PARTS if plan.wants(*(measure.name for measure in part.measures))]
    for number, part in enumerate(parts, 1):
        plan.say(f"[{number}/{len(parts)}] {part.about}")
        rows += _rows(part, plan)
    print(report.aligned([(name, value) for name, value in about.items()]), end="\n\n")
    print(report.table(rows))
    if options.json:
        options.json.write_text(report.to_json(rows, about, plan.jobs_per_s), encoding="utf-8")
    if options.markdown:
        _write_document(rows, about, plan)
    failed = any(row.value is None for row in rows)
    missed = any(row.met is False for row in rows)
    return int(failed or (options.strict and missed))


def _rows(part: Part, plan: Plan) -> list[Row]:
    try:
        return part.run(plan)
    except Exception as fault:  # noqa: BLE001  whatever a party does, the other measures go on
        why = " ".join(f"{type(fault).__name__}: {fault}".split())
        plan.say(f"  failed: {why}")
        if len(why) > MAX_WHY:
            why = f"{why[: MAX_WHY // 2]} … {why[-MAX_WHY // 2 :]}"  # the end of a log says most
        return [measure.failed(why) for measure in part.measures if plan.wants(measure.name)]


def _plan(options: argparse.Namespace) -> Plan:
    names = frozenset(measure.name for part in PARTS for measure in part.measures)
    if options.markdown and (options.quick or not _are_sections(options.only or names)):
        sys.exit("--markdown writes whole tables: leave out --quick, and --only or name all of a table by it")
    wanted = frozenset(options.only or names)
    if not options.peer:
        if needs_peer := NEEDS_PEER.intersection(options.only or []):
            sys.exit(f"{' and '.join(sorted(needs_peer))}: --peer infinity is needed")
        wanted -= NEEDS_PEER
    lengths = QUICK if options.quick else Lengths()
    if options.rounds:
        lengths = replace(lengths, rounds=options.rounds)
    return Plan(wanted, lengths, peer=options.peer, chosen_folder=options.model)


def _are_sections(names: Collection[str]) -> bool:
    """Return whether *names* are all measures of some sections, those of a peer aside."""
    of_section: dict[str, set[str]] = {}
    for part in PARTS:
        of_section.setdefault(part.section, set()).update(measure.name for measure in part.measures)
    wanted = set(names) | NEEDS_PEER
    return all(mine <= wanted or mine.isdisjoint(names) for mine in of_section.values())


def _write_document(rows: Sequence[Row], about: dict[str, str], plan: Plan) -> None:
    for section in dict.fromkeys(part.section for part in PARTS):
        names = {measure.name for part in PARTS if part.section == section for measure in part.measures}
        text = report.markdown([row for row in rows if row.name in names], about)
        if section == "measures" and len(plan.jobs_per_s) > 1:
            from bench import plot  # noqa: PLC0415  matplotlib is needed for nothing else

            plot.write_throughput(PLOT, plan.jobs_per_s, about["CPU"])
            text += f"\n\n![jobs a second of every party]({PLOT.relative_to(ROOT).as_posix()})"
        if plan.wants(*names):
            report.write_section(DOCUMENT, section, text)
            plan.say(f"written to {DOCUMENT.name}, {section}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="How fast the worker is, as ratios to other ways, beside targets. About 28 minutes.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [measure.name for part in PARTS for measure in part.measures]
    add = parser.add_argument
    add("--list", action="store_true", help="list the measures and end")
    add(
        "--only", nargs="+", metavar="NAME", choices=[*names, ROUTES], help="these measures only (see --list)"
    )
    add("--peer", choices=["infinity"], help="compare with Infinity too, in a virtual environment of its own")
    add("--quick", action="store_true", help="a tenth of the time: shows that it runs, not how fast")
    add("--rounds", type=int, metavar="N", help="turns of every party (3)")
    add("--cores", type=int, default=2, metavar="N", help="cores for all parties and callers together (2)")
    add("--model", type=Path, metavar="DIR", help="a folder in open_clip's hub format instead of ViT-B/32")
    add("--json", type=Path, metavar="FILE", help="write machine, rows and every round's jobs/s as JSON")
    add("--markdown", action="store_true", help="write the tables and a plot into BENCHMARKS.md")
    add("--strict", action="store_true", help="exit with 1 if a target is missed; a failure always does")
    return parser


if __name__ == "__main__":
    sys.exit(main())
