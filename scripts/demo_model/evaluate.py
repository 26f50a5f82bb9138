"""Measures a demo model as anyone would use it, through open_clip from its folder, and writes its card.

Every drawing is fresh: none was trained on, and of the withheld combinations no picture or caption was.
Chance is stated beside each figure, for a share means nothing without it.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import open_clip
import torch
from safetensors import safe_open

from scripts.demo_model.card import Figure, card
from scripts.demo_model.draw import (
    FULL_TEMPLATE,
    Combination,
    Scene,
    caption,
    chance,
    combinations,
    draw,
    held_out_combinations,
    random_scene,
    random_size_px,
)
from scripts.demo_model.train import WEIGHTS_NAME, write_whole
from scripts.demo_model.vocabulary import BACKGROUNDS, COLOURS, COUNTS, POSITIONS, SHAPES, SIZES


if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from PIL import Image
    from torch import Tensor

ROUNDS: Final = 10  # drawings of each withheld combination


class Served:
    """A folder's model, tokenizer and preprocessing as open_clip makes them; float32 on the CPU."""

    def __init__(self, folder: Path) -> None:
        name = f"local-dir:{folder}"
        self.model, self._preprocess = open_clip.create_model_from_pretrained(name)
        self.model.eval()
        self._tokenize = open_clip.get_tokenizer(name)

    @torch.no_grad()
    def images(self, pictures: Iterable[Image.Image]) -> Tensor:
        """Return (N, 512) L2-normalised vectors of the pictures, in order."""
        pixels = torch.stack([self._preprocess(picture) for picture in pictures])
        parts = [self.model.encode_image(part, normalize=True) for part in pixels.split(100)]
        return torch.cat(parts)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Return (N, 512) L2-normalised vectors of the texts, in order; equal texts are embedded once."""
        distinct = sorted(set(texts))
        tokens = self._tokenize(distinct).split(100)
        vectors = torch.cat([self.model.encode_text(part, normalize=True) for part in tokens])
        where = {text: i for i, text in enumerate(distinct)}
        return vectors[[where[text] for text in texts]]


@dataclass(frozen=True, slots=True)
class Drawn:
    """Scenes with the vectors of one drawing of each, (N, 512)."""

    scenes: tuple[Scene, ...]
    vectors: Tensor

    def where(self, kept: Sequence[bool]) -> Drawn:
        """Return the part for which `kept` is true."""
        return Drawn(tuple(itertools.compress(self.scenes, kept)), self.vectors[torch.tensor(kept)])


def draw_all(served: Served, chosen: Sequence[Combination], rng: random.Random) -> Drawn:
    """Return one fresh drawing of each combination, everything else left to chance."""
    scenes = tuple(random_scene(rng, combination) for combination in chosen)
    return Drawn(scenes, served.images(draw(scene, random_size_px(rng)) for scene in scenes))


def retrieval(served: Served, drawn: Drawn) -> tuple[float, float]:
    """Return top-1 among the scenes' full captions: of pictures for captions, and the other way round."""
    similarity = drawn.vectors @ served.texts([caption(scene) for scene in drawn.scenes]).T
    own = torch.arange(len(similarity))
    to_caption, to_picture = ((similarity.argmax(dim=d) == own).float().mean().item() for d in (1, 0))
    return to_caption, to_picture


def choice(served: Served, drawn: Drawn, options: Sequence[Sequence[str]]) -> float:
    """Return how often a picture prefers the first of its own options, all of equal number."""
    vectors = served.texts(list(itertools.chain.from_iterable(options))).view(
        len(options), len(options[0]), -1
    )
    best = torch.einsum("nd,nkd->nk", drawn.vectors, vectors).argmax(dim=1)
    return (best == 0).float().mean().item()


def measure(served: Served, seed: int) -> list[Figure]:
    """Return every figure of the card, for the model trained with this seed."""
    rng = chance("evaluation", seed)
    held_out = held_out_combinations(seed)
    known = [combination for combination in combinations() if combination not in held_out]
    rounds = [draw_all(served, held_out, rng) for _ in range(ROUNDS)]
    familiar = [draw_all(served, rng.sample(known, len(held_out)), rng) for _ in range(ROUNDS)]
    drawn = Drawn(
        tuple(itertools.chain.from_iterable(r.scenes for r in rounds)), torch.cat([r.vectors for r in rounds])
    )
    return [
        *_retrieval_figures("withheld combinations", [retrieval(served, r) for r in rounds]),
        *_retrieval_figures("trained combinations", [retrieval(served, r) for r in familiar]),
        *_caption_figures(served, drawn),
        *_attribute_figures(served, drawn),
    ]


def _retrieval_figures(what: str, results: list[tuple[float, float]]) -> list[Figure]:
    ways = ("picture to caption", "caption to picture")
    return [
        Figure(f"{way}, 100 {what}", sum(shares) / len(shares), 1 / 100, worst=min(shares))
        for way, shares in zip(ways, zip(*results, strict=True), strict=True)
    ]


def _caption_figures(served: Served, drawn: Drawn) -> list[Figure]:
    """Judge the withheld drawings against larger and shorter sets of captions."""
    everything = [
        [caption(scene), *_others(scene, FULL_TEMPLATE, map(Combination._asdict, combinations()))]
        for scene in drawn.scenes
    ]
    single = drawn.where([scene.count == 1 for scene in drawn.scenes])
    pairs = [{"colour": colour, "shape": shape} for colour, shape in itertools.product(COLOURS, SHAPES)]
    short = [[caption(s, "{things}"), *_others(s, "{things}", pairs)] for s in single.scenes]
    return [
        Figure(
            "picture to caption, among the captions of all 400", choice(served, drawn, everything), 1 / 400
        ),
        Figure(
            "picture to short caption ('a red circle'), 80 of them", choice(served, single, short), 1 / 80
        ),
        Figure(
            "short caption to picture, one of some 12 among 1,000", _short_to_picture(served, drawn), 1 / 80
        ),
    ]


def _short_to_picture(served: Served, drawn: Drawn) -> float:
    """Return how often the best picture for 'red circle' shows a red circle, or several."""
    pairs = list(itertools.product(COLOURS, SHAPES))
    best = (served.texts([" ".join(pair) for pair in pairs]) @ drawn.vectors.T).argmax(dim=1)
    found = [
        (drawn.scenes[i].colour, drawn.scenes[i].shape) == pair for i, pair in zip(best, pairs, strict=True)
    ]
    return sum(found) / len(found)


def _attribute_figures(served: Served, drawn: Drawn) -> list[Figure]:
    """Judge one attribute at a time: the captions offered differ in nothing else."""
    single = drawn.where([scene.count == 1 for scene in drawn.scenes])
    movable = single.where([scene.size != "large" for scene in single.scenes])
    asked = (
        ("colour", COLOURS, drawn, FULL_TEMPLATE),
        ("shape", SHAPES, drawn, FULL_TEMPLATE),
        ("background", BACKGROUNDS, drawn, FULL_TEMPLATE),
        ("count", COUNTS, drawn, FULL_TEMPLATE),
        ("size", SIZES, single, "{sized}"),
        ("position", POSITIONS, movable, "{things} {where}"),
    )
    figures = []
    for name, values, pictures, template in asked:
        changes = [{name: value} for value in values]
        options = [[caption(s, template), *_others(s, template, changes)] for s in pictures.scenes]
        figures.append(
            Figure(f"{name}, {len(values)} of them", choice(served, pictures, options), 1 / len(values))
        )
    return figures


def _others(scene: Scene, template: str, changes: Iterable[dict[str, Any]]) -> list[str]:
    """Return the captions of the changed scenes, less the scene's own."""
    own = caption(scene, template)
    # Size and position exclude some counts and each other; no caption here states them unless they change.
    base = Scene(*scene.combination, count=scene.count)
    texts = (caption(dataclasses.replace(base, **change), template) for change in changes)
    return [text for text in texts if text != own]


def write_card(folder: Path) -> str:
    """Measure the folder's model, write its README.md and return it."""
    with safe_open(folder / WEIGHTS_NAME, "pt") as weights:
        origin = weights.metadata()
    served = Served(folder)
    text = card(
        measure(served, int(origin["seed"])),
        seed=int(origin["seed"]),
        steps=int(origin["steps"]),
        parameters=sum(p.numel() for p in served.model.parameters()),
        weights_bytes=(folder / WEIGHTS_NAME).stat().st_size,
    )
    write_whole(folder / "README.md", text.encode())
    return text
