"""The command line: `python -m embedding COMMAND`.

Each command imports what it needs when it runs, so that `--help` answers at once. A fault that the user
can mend ends in one line on stderr and exit status 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from embedding.errors import StartupError


if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130  # what a shell reports after Ctrl-C


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that *arguments* name; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except StartupError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing was left half-written", file=sys.stderr)
        return INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m embedding", description="CLIP embeddings for images and texts"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_prepare(commands)
    _add_golden(commands)
    return parser


def _add_prepare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("prepare", help="make a folder of weights that starts fast")
    command.add_argument(
        "--model", required=True, metavar="NAME", help="open_clip's name, or hf-hub:org/name"
    )
    command.add_argument(
        "--pretrained", default="", metavar="TAG", help="open_clip's tag; 'random' for tests and benchmarks"
    )
    command.add_argument("--out", required=True, type=Path, metavar="DIR", help="the folder to make")
    command.add_argument(
        "--precision", choices=["fp16", "fp32"], default="fp16", help="of the weights (fp16)"
    )
    command.add_argument(
        "--weights", type=Path, metavar="FILE", help="a checkpoint here, instead of a download"
    )
    command.set_defaults(run=_prepare)


def _prepare(options: argparse.Namespace) -> None:
    from embedding.model.prepare import prepare  # noqa: PLC0415  (imports open_clip)

    prepare(
        options.model, options.pretrained, options.out, precision=options.precision, weights=options.weights
    )


def _add_golden(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("golden", help="write golden.json for a folder in open_clip's hub format")
    command.add_argument("folder", type=Path, metavar="DIR")
    command.set_defaults(run=_golden)


def _golden(options: argparse.Namespace) -> None:
    from embedding.model.golden import write_golden  # noqa: PLC0415  (imports torch)

    write_golden(options.folder)
    print(f"golden vectors written into {options.folder}")


if __name__ == "__main__":
    sys.exit(main())
