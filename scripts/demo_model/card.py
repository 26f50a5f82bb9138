"""The demo model's card: what it is, how it was made, what was measured, and what it cannot do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scripts.demo_model.draw import held_out_combinations
from scripts.demo_model.vocabulary import BACKGROUNDS, COLOURS, COUNTS, SHAPES


if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured share of right answers, the share that guessing earns, and the worst round if several."""

    what: str
    share: float
    guess: float
    worst: float | None = None

    def row(self) -> str:
        """Return the figure as a row of the card's table."""
        worst = "" if self.worst is None else f"{self.worst:.0%}"
        return f"| {self.what} | {self.share:.1%} | {worst} | {self.guess:.1%} |"


def card(figures: Sequence[Figure], *, seed: int, steps: int, parameters: int, weights_bytes: int) -> str:
    """Return the card in Markdown."""
    return _CARD.format(
        rows="\n".join(figure.row() for figure in figures),
        seed=seed,
        steps=steps,
        parameters=f"{parameters:,}",
        megabytes=f"{weights_bytes / 1e6:.1f}",
        colours=_listed(COLOURS),
        shapes=_listed(SHAPES),
        backgrounds=_listed(BACKGROUNDS),
        most=max(COUNTS),
        examples=_listed(f"{c.colour} {c.shape} on {c.background}" for c in held_out_combinations(seed)[:3]),
    )


def _listed(names: object) -> str:
    return ", ".join(map(str, names))  # type: ignore[call-overload]


_CARD = """\
---
library_name: open_clip
pipeline_tag: zero-shot-image-classification
tags: [clip, demo]
---

# Demo model

A tiny CLIP that knows drawings of shapes and nothing else. It lets the worker's smoke test, dry
run, tests and demonstrations mean something without a network: 'a red circle' really ranks first
for a red circle.

{parameters} parameters ({megabytes} MB in float16), 512 dimensions, pictures of 64 x 64 pixels in
patches of 16, open_clip's standard tokenizer. Same folder format and same kind of towers as a full
CLIP ViT.

## How it was made

    python -m scripts.demo_model --seed {seed} --steps {steps}

draws its own training pictures, trains open_clip's CLIP on them and their captions on the CPU, and
writes this folder. No picture or caption comes from anywhere else. Of the 49,408 words and word
parts of the tokenizer, those that no training caption uses have an embedding of zero: they carry no
meaning.

It was taught:

- colours: {colours}
- shapes: {shapes}
- backgrounds: {backgrounds}
- counts of one shape: 1 to {most}
- sizes small, medium and large, and nine positions, of a single shape

## What was measured

Through open_clip from this folder, seed {seed}. Every drawing is fresh, in a random size and aspect
ratio.

Colours, shapes and backgrounds make 400 combinations. One hundred were withheld: no training
picture or caption ever showed or named them together. Each pair of colour and shape is withheld on
one background or two, and was trained on the others ({examples}, and so on). 'Withheld
combinations' means one drawing of each, and its caption in the form 'two red circles on a white
background', all 100 different; ten rounds of drawings.

| | right | worst of ten rounds | guessing |
| --- | --- | --- | --- |
{rows}

The last six rows offer, for a drawing of a withheld combination, captions that differ in the one
attribute named.

## What it cannot do

- It knows nothing of photographs, nor of any object, scene, style or word not listed above. For
  such input its vectors mean nothing, though they look like any others.
- It hardly knows where a shape is: position is close to guessing. Shapes and counts are told apart in
  six cases of seven, so a caption of all attributes is often beaten by one that differs in the shape.
- It has seen one kind of shape at a time, in one colour, on a plain background; no scene of two
  colours.
- It understands short English phrases of the forms it was taught; word order, negation and
  sentences longer than about twenty words are beyond it.
- Cosines are not comparable with those of any other CLIP.
"""
