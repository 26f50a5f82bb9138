"""The command line: `python -m tests.chaos` prints a table, and exits with 1 if anything was wrong."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import TYPE_CHECKING

from bench.report import aligned
from tests.chaos.plan import Plan


if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.figures import Outcome

DEFAULTS = Plan()
SHOWN = 20
INTERRUPTED = 130  # what a shell reports after Ctrl-C
EPILOG = """\
what happens:
  Three workers serve signed jobs of every kind, good and bad, on a platform on 127.0.0.1, while workers are
  killed, stopped and replaced, jobs are delivered twice, the platform answers 429, 500, half a JSON or not at
  all, forwards raise, find no memory or lose the device, and pictures come late, broken or never.

what is checked:
  every job has exactly one result; each of its items has the right vector or the right error, known
  beforehand; late results of jobs delivered twice are right too; workers end as they should and do not grow;
  logs hold no secret, and no traceback but those of injected faults.

examples:
  python -m tests.chaos                     2,000 jobs, about two minutes on two cores
  python -m tests.chaos --jobs 60           a quick look
  python -m tests.chaos --seed 7            other jobs, other faults
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what *arguments* ask for; return the exit status."""
    options = _parser().parse_args(arguments)
    from tests.chaos.run import run  # noqa: PLC0415  (imports torch, which --help does without)

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # no worker outlives this process
    plan = Plan(jobs=options.jobs, seed=options.seed, workers=options.workers, callers=options.callers)
    try:
        outcome = run(plan, lambda line: print(line, file=sys.stderr, flush=True))
    except KeyboardInterrupt:
        print("interrupted; nothing is left running", file=sys.stderr)
        return INTERRUPTED
    show(outcome)
    return int(bool(outcome.violations))


def show(outcome: Outcome) -> None:
    """Print the figures and what was wrong."""
    print(aligned([(name, str(value)) for name, value in outcome.figures.items()]))
    for violation in outcome.violations[:SHOWN]:
        print(f"✗ {violation}")
    if len(outcome.violations) > SHOWN:
        print(f"✗ and {len(outcome.violations) - SHOWN} more")
    if not outcome.violations:
        print("✓ every job ended with exactly one right result or one right error")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="Many jobs while everything around the worker fails: is each answered once, and rightly?",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--jobs", type=_positive, default=DEFAULTS.jobs, metavar="N", help="how many jobs (2000)")
    add(
        "--seed",
        type=int,
        default=DEFAULTS.seed,
        metavar="N",
        help="what all jobs and faults are drawn from (1)",
    )
    add("--workers", type=_positive, default=DEFAULTS.workers, metavar="N", help="workers at a time (3)")
    add("--callers", type=_positive, default=DEFAULTS.callers, metavar="N", help="jobs open at a time (40)")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


if __name__ == "__main__":
    sys.exit(main())
