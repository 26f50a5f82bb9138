"""The stages on their own: preprocessing and texts, each by turns with open_clip's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from bench.figures import ratio, spread
from bench.model import run_python
from bench.report import Measure


if TYPE_CHECKING:
    from bench.plan import Plan
    from bench.report import Row

PREPROCESS: Final = Measure(
    "preprocess_vga", "time for a VGA JPEG on one core against open_clip's transform", "×", 0.42
)
TEXTS: Final = Measure(
    "texts_32", "32 short texts against open_clip's encode_text in the same type", "×", 6.0, at_least=True
)


def measure_preprocess(plan: Plan) -> list[Row]:
    """Return the row of the preprocessing of a VGA JPEG."""
    mine, theirs = [], []
    for _ in range(plan.lengths.rounds):
        took_ms = json.loads(run_python("-m", "bench.preprocessing", "--vga", str(plan.lengths.single_s)))
        mine.append(took_ms["ours"])
        theirs.append(took_ms["open_clip"])
    return [PREPROCESS.row(ratio(mine, theirs), f"{spread(mine, '.2f')} / {spread(theirs, '.2f')} ms")]


def measure_texts(plan: Plan) -> list[Row]:
    """Return the row of 32 texts."""
    mine, theirs = plan.forward_ms("own_texts_32_ms"), plan.forward_ms("open_clip_texts_32_ms")
    return [TEXTS.row(ratio(theirs, mine), f"{spread(theirs)} / {spread(mine)} ms")]
