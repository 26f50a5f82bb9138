"""Turns scenes into what the towers take: pixels, tokens, and which caption is true of which picture.

A caption often fits more than one picture of its batch ('a red circle' fits every red circle); `truth` says
which, so that training treats such a pair neither as a match nor as a mismatch.
Words that no caption uses carry no meaning (their embedding is zero); a few are mixed into the captions so
that the text tower learns to pass over them.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import open_clip
import torch
from PIL import Image, ImageOps
from torch import Tensor

from scripts.demo_model.draw import (
    SINGLE_TEMPLATES,
    TEMPLATES,
    Scene,
    caption,
    combinations,
    draw,
    random_size_px,
    stated,
)
from scripts.demo_model.vocabulary import BACKGROUNDS, COLOURS, COUNTS, POSITIONS, SHAPES, SIZES


if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Sequence

IMAGE_SIDE_PX: Final = 64
TRAINED_TOKENS: Final = 26  # the longest caption has 18, start and end included
UNKNOWN_TOKEN: Final = 0  # the padding as well
_SPELLINGS: Final = (("grey", "gray"), ("centre", "center"))
_ATTRIBUTES: Final[dict[str, list[Any]]] = {
    "colour": list(COLOURS),
    "shape": list(SHAPES),
    "background": list(BACKGROUNDS),
    "count": list(COUNTS),
    "size": list(SIZES),
    "position": list(POSITIONS),
}
_UNKNOWN_WORD_RATE: Final = 0.15
_FULL_STOP_RATE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures with one caption each: pixels (N, 3, 64, 64) uint8, tokens (N, 26) int64, truth (N, N) bool.

    `truth[i, j]` tells whether caption j is true of picture i. `attributes` (N, 3) int64 numbers each
    picture's colour, shape and background among those of `attribute_captions`.
    """

    pixels: Tensor
    tokens: Tensor
    truth: Tensor
    attributes: Tensor


@dataclass(frozen=True, slots=True)
class Lesson:
    """What the first steps see: until step *until*, only the scenes that are easy enough."""

    until: int
    is_easy: Callable[[Scene], bool]


def render(scenes: Sequence[Scene], rng: random.Random) -> Tensor:
    """Return the scenes as (N, 3, 64, 64) uint8: random sizes, then resized and cropped as served."""
    out = torch.empty(len(scenes), IMAGE_SIDE_PX, IMAGE_SIDE_PX, 3, dtype=torch.uint8)
    for i, scene in enumerate(scenes):
        picture = draw(scene, random_size_px(rng))
        fitted = ImageOps.fit(picture, (IMAGE_SIDE_PX, IMAGE_SIDE_PX), Image.Resampling.BICUBIC)
        out[i] = torch.from_numpy(np.array(fitted))
    return out.permute(0, 3, 1, 2).contiguous()


def batches(
    scenes: Sequence[Scene], pixels: Tensor, size: int, rng: random.Random, lessons: Sequence[Lesson] = ()
) -> Iterator[Batch]:
    """Yield batches without end, of different scenes, each time with another caption; *lessons* in order."""
    facts = _facts(scenes)
    pools = [[i for i, scene in enumerate(scenes) if lesson.is_easy(scene)] for lesson in lessons]
    for step in itertools.count():
        easy = (pool for lesson, pool in zip(lessons, pools, strict=True) if step < lesson.until)
        chosen = rng.sample(next(easy, range(len(scenes))), size)
        templates = [_random_template(scenes[i], rng) for i in chosen]
        tokens = [_tokens(scenes[i], template, rng) for i, template in zip(chosen, templates, strict=True)]
        seen = facts[chosen]
        yield Batch(pixels[chosen], torch.tensor(tokens), truth(seen, templates), seen[:, :3])


def attribute_captions() -> list[list[str]]:
    """Return captions that state one attribute alone: every colour, every shape, every background."""
    scenes = [Scene(c, s, b) for c, s, b in combinations()]
    templates = {"colour": "something {colour}", "shape": "{kind}", "background": "a {background} background"}
    return [
        list(dict.fromkeys(caption(scene, template) for scene in scenes)) for template in templates.values()
    ]


def truth(facts: Tensor, templates: Sequence[str]) -> Tensor:
    """Return (N, N) bool: whether the caption of scene j, by template j, is true of scene i."""
    same = facts[:, None] == facts[None]
    silent = ~torch.stack([_stated_mask(template) for template in templates])
    return (same | silent[None]).all(dim=-1)


def vocabulary() -> frozenset[int]:
    """Return the ids of all tokens that any caption uses, start and end of text included."""
    sample = [Scene(*c, count=n) for c in combinations() for n in COUNTS]
    texts = {caption(scene, template) for scene in sample for template in TEMPLATES}
    places = [("small", p) for p in POSITIONS] + [("medium", "centre"), ("large", "centre")]
    singles = [Scene("red", "circle", "white", size=size, position=position) for size, position in places]
    texts |= {caption(scene, template) for scene in singles for template in SINGLE_TEMPLATES}
    texts |= {text.replace(*spelling) for text in texts for spelling in _SPELLINGS}
    return frozenset(itertools.chain.from_iterable(map(_encode, texts))) | {_encode(".")[1]}


def _facts(scenes: Sequence[Scene]) -> Tensor:
    rows = [[known.index(getattr(s, name)) for name, known in _ATTRIBUTES.items()] for s in scenes]
    return torch.tensor(rows)


@functools.cache
def _stated_mask(template: str) -> Tensor:
    names = stated(template)
    return torch.tensor([name in names for name in _ATTRIBUTES])


def _random_template(scene: Scene, rng: random.Random) -> str:
    return rng.choice(TEMPLATES if scene.count > 1 or rng.getrandbits(1) else SINGLE_TEMPLATES)


def _tokens(scene: Scene, template: str, rng: random.Random) -> list[int]:
    """Return the caption's tokens, padded; now and then with unknown words, a full stop, or US spelling."""
    text = caption(scene, template)
    for spelling in _SPELLINGS:
        if rng.getrandbits(1):
            text = text.replace(*spelling)
    if rng.random() < _FULL_STOP_RATE:
        text += "."
    tokens = list(_encode(text))
    if rng.random() < _UNKNOWN_WORD_RATE:
        for _ in range(rng.randint(1, 4)):
            tokens.insert(rng.randint(1, len(tokens) - 1), UNKNOWN_TOKEN)
    return tokens + [UNKNOWN_TOKEN] * (TRAINED_TOKENS - len(tokens))


@functools.cache
def _encode(text: str) -> tuple[int, ...]:
    tokenizer = _tokenizer()
    return (tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id)


@functools.cache
def _tokenizer() -> open_clip.SimpleTokenizer:
    return open_clip.SimpleTokenizer()


def padded(texts: Sequence[str]) -> Tensor:
    """Return texts as (N, 26) int64 tokens; raises ValueError for one that is longer."""
    rows = [_encode(text) for text in texts]
    if max(map(len, rows)) > TRAINED_TOKENS:
        raise ValueError(f"a text is longer than {TRAINED_TOKENS} tokens")
    return torch.tensor([list(row) + [UNKNOWN_TOKEN] * (TRAINED_TOKENS - len(row)) for row in rows])
