"""`python -m scripts.demo_model`: draw, train, write the folder, measure it, write its card."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Final

from embedding.model.golden import write_golden
from scripts.demo_model.draw import SMOKE_SCENE, SMOKE_SIZE_PX, draw
from scripts.demo_model.evaluate import write_card
from scripts.demo_model.train import Recipe, save_folder, train


DEFAULT_OUT: Final = Path("embedding/model/demo")
INTERRUPTED: Final = 130  # what a shell reports after Ctrl-C


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 0 when the folder is complete, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        if options.smoke_picture:
            draw(SMOKE_SCENE, SMOKE_SIZE_PX).save(options.smoke_picture, quality=90)
            return 0
        if not options.card_only:
            _train(options)
        print("measuring", flush=True)
        print(write_card(options.out))
    except KeyboardInterrupt:
        print("interrupted: files that were not finished are as they were before", file=sys.stderr)
        return INTERRUPTED
    return 0


def _train(options: argparse.Namespace) -> None:
    recipe = Recipe(seed=options.seed, steps=options.steps)
    started_s = time.monotonic()
    save_folder(train(recipe), options.out, recipe)
    write_golden(options.out)
    print(f"trained in {(time.monotonic() - started_s) / 60:.1f} min")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.demo_model", description=__doc__)
    recipe = Recipe()
    parser.add_argument(
        "--seed", type=int, default=recipe.seed, help="of the drawings, captions and weights (%(default)s)"
    )
    parser.add_argument("--steps", type=int, default=recipe.steps, help="batches to train on (%(default)s)")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder to write (%(default)s)")
    parser.add_argument(
        "--card-only", action="store_true", help="train nothing: measure the folder, write its card"
    )
    parser.add_argument("--smoke-picture", type=Path, metavar="FILE", help="only draw the smoke test's JPEG")
    return parser


if __name__ == "__main__":
    sys.exit(main())
