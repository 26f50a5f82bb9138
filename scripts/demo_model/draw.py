"""Draws the demo model's pictures and writes their captions: shapes of one colour on a plain ground.

A `Scene` states six attributes (colour, shape, background, count, size, position) and a seed for all that
no caption states: the exact shade, place, diameter and tilt.
`draw` and `caption` are functions of their arguments alone, so any picture can be made again anywhere.

Everything is placed inside the central square of the picture, for that is what CLIP's preprocessing keeps.
One hundred combinations of colour, shape and background are withheld from training
(`held_out_combinations`): what a model says about those, it composed itself.
"""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass
from string import Formatter
from typing import Final, NamedTuple

from PIL import Image, ImageDraw

from scripts.demo_model.vocabulary import (
    BACKGROUNDS,
    COLOURS,
    COUNTS,
    GROUP_DIAMETER,
    POSITIONS,
    SHAPES,
    SIZES,
    Form,
    Outline,
    Point,
    Rgb,
)


# Each names its attributes by placeholder; `stated` tells which.
TEMPLATES: Final = (
    "{things}",
    "{bare}",
    "a photo of {things}",
    "a picture of {things}",
    "a drawing of {things}",
    "an image of {things}",
    "{things} on {background}",
    "{things} on a {background} background",
    "{bare} on a {background} background",
    "a photo of {things} on a {background} background",
    "a picture of {things} on a {background} background",
    "{kind}",
    "{kind} on a {background} background",
    "something {colour}",
    "something {colour} on a {background} background",
    "a {background} background",
)
SINGLE_TEMPLATES: Final = (  # size and position belong to a single shape
    "{sized}",
    "a photo of {sized}",
    "{sized} on a {background} background",
    "{things} {where}",
    "a picture of {things} {where}",
    "{things} {where} on a {background} background",
    "{sized} {where}",
    "{sized} {where} on a {background} background",
)
FULL_TEMPLATE: Final = "{things} on a {background} background"
_STATES: Final = {
    "things": {"colour", "shape", "count"},
    "bare": {"colour", "shape"},
    "kind": {"shape", "count"},
    "sized": {"colour", "shape", "count", "size"},
    "where": {"position"},
    "colour": {"colour"},
    "background": {"background"},
}
_SUPERSAMPLING: Final = 4
_GAP: Final = 1.1  # between the centres of two shapes, in diameters


class Combination(NamedTuple):
    """A colour, a shape and a background."""

    colour: str
    shape: str
    background: str


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture in words.

    `size` and `position` are those of a single shape; several shapes are spread over the picture in a size
    that no caption states, and carry the defaults. A large shape is always in the centre.
    Raises ValueError for a name that is not drawn, and for attributes that exclude one another.
    """

    colour: str
    shape: str
    background: str
    count: int = 1
    size: str = "medium"
    position: str = "centre"
    seed: int = 0

    def __post_init__(self) -> None:
        for value, known in (
            (self.colour, COLOURS),
            (self.shape, SHAPES),
            (self.background, BACKGROUNDS),
            (self.count, COUNTS),
            (self.size, SIZES),
            (self.position, POSITIONS),
        ):
            if value not in known:
                raise ValueError(f"{value!r} is not drawn; known are: {', '.join(map(str, known))}")
        if self.count > 1 and (self.size, self.position) != ("medium", "centre"):
            raise ValueError("size and position belong to a single shape")
        if self.size == "large" and self.position != "centre":
            raise ValueError("a large shape is always in the centre")

    @property
    def combination(self) -> Combination:
        """Return the attributes by which scenes are withheld from training."""
        return Combination(self.colour, self.shape, self.background)


HELD_OUT: Final = 100
SMOKE_SCENE: Final = Scene("red", "circle", "white")
SMOKE_SIZE_PX: Final = (640, 480)


def combinations() -> tuple[Combination, ...]:
    """Return every colour, shape and background there is, in a fixed order."""
    return tuple(itertools.starmap(Combination, itertools.product(COLOURS, SHAPES, BACKGROUNDS)))


def held_out_combinations(seed: int) -> tuple[Combination, ...]:
    """Return the 100 combinations that a model trained with this seed has never met, in a fixed order.

    Each pair of colour and shape is withheld on one background, some on a second, and met on the others;
    each background loses equally many pairs.
    """
    pairs = list(itertools.product(COLOURS, SHAPES))
    chance("held out", seed).shuffle(pairs)
    grounds = list(BACKGROUNDS)
    once = [Combination(*pair, grounds[i % len(grounds)]) for i, pair in enumerate(pairs)]
    again = [Combination(*pair, grounds[(i + 2) % len(grounds)]) for i, pair in enumerate(pairs)]
    return tuple([*once, *again][:HELD_OUT])


def chance(purpose: str, seed: int) -> random.Random:
    """Return a source of chance that repeats itself for the same purpose and seed."""
    return random.Random(f"{purpose} {seed}")  # noqa: S311 - pictures, not secrets


def random_scene(rng: random.Random, combination: Combination) -> Scene:
    """Return a scene of the combination with everything else left to chance."""
    seed = rng.getrandbits(32)
    count = rng.choices(list(COUNTS), weights=(6, 2, 2, 2))[0]
    if count > 1:
        return Scene(*combination, count=count, seed=seed)
    size = rng.choice(list(SIZES))
    position = "centre" if size == "large" else rng.choice(list(POSITIONS))
    return Scene(*combination, size=size, position=position, seed=seed)


def random_size_px(rng: random.Random) -> tuple[int, int]:
    """Return a width and height from 64 to 640: square, lying or standing, at most 16:9."""
    short = round(math.exp(rng.uniform(math.log(64), math.log(360))))
    long = round(short * rng.choice((1.0, 1.0, 5 / 4, 4 / 3, 3 / 2, 16 / 9)))
    return (short, long) if rng.getrandbits(1) else (long, short)


def stated(template: str) -> frozenset[str]:
    """Return the attributes of a scene that a caption of this template states."""
    fields = (field for _, field, _, _ in Formatter().parse(template) if field)
    return frozenset().union(*(_STATES[field] for field in fields))


def caption(scene: Scene, template: str = FULL_TEMPLATE) -> str:
    """Return the template filled in for the scene; raises ValueError where it does not apply."""
    if scene.count > 1 and stated(template) & {"size", "position"}:
        raise ValueError("size and position belong to a single shape")
    return template.format(
        things=_counted(scene.count, f"{scene.colour} {scene.shape}"),
        bare=_numbered(scene.count, f"{scene.colour} {scene.shape}"),
        kind=_counted(scene.count, scene.shape),
        sized=f"a {scene.size} {scene.colour} {scene.shape}",
        where=POSITIONS[scene.position][1],
        colour=scene.colour,
        background=scene.background,
    )


def _counted(count: int, noun: str) -> str:
    word = "an" if count == 1 and noun[0] in "aeiou" else COUNTS[count]
    return f"{word} {_numbered(count, noun)}"


def _numbered(count: int, noun: str) -> str:
    return noun if count == 1 else f"{noun}es" if noun.endswith("s") else f"{noun}s"


def draw(scene: Scene, size_px: tuple[int, int] = (256, 256)) -> Image.Image:
    """Return the scene as an RGB picture of the given width and height, edges smoothed.

    The same arguments give the same pixels. Sides under 32 px leave small shapes unrecognisable.
    """
    rng = chance("picture", scene.seed)
    picture = Image.new("RGB", size_px, _shade(rng, BACKGROUNDS[scene.background]))
    colour = _shade(rng, COLOURS[scene.colour])
    form = SHAPES[scene.shape]
    side = min(size_px)
    diameter, centres = _places(scene, rng)
    for x, y in centres:
        centre = ((size_px[0] - side) / 2 + x * side, (size_px[1] - side) / 2 + y * side)
        tilt_deg = rng.uniform(-form.tilt_deg, form.tilt_deg)
        _stamp(picture, colour, form, centre=centre, radius_px=diameter * side / 2, tilt_deg=tilt_deg)
    return picture


def _shade(rng: random.Random, ends: tuple[Rgb, Rgb]) -> Rgb:
    way = rng.random()
    red, green, blue = (round(a + (b - a) * way) for a, b in zip(*ends, strict=True))
    return red, green, blue


def _places(scene: Scene, rng: random.Random) -> tuple[float, list[Point]]:
    """Return the diameter and the centres of the scene's shapes, as fractions of the central square."""
    if scene.count == 1:
        diameter = rng.uniform(*SIZES[scene.size])
        room = diameter / 2 + 0.01
        x, y = (at + rng.uniform(-0.05, 0.05) for at in POSITIONS[scene.position][0])
        return diameter, [(min(max(x, room), 1 - room), min(max(y, room), 1 - room))]
    diameter = rng.uniform(*GROUP_DIAMETER)
    while True:
        room = diameter / 2 + 0.01
        centres = [(rng.uniform(room, 1 - room), rng.uniform(room, 1 - room)) for _ in range(scene.count)]
        if all(math.dist(a, b) > diameter * _GAP for a, b in itertools.combinations(centres, 2)):
            return diameter, centres
        diameter *= 0.99  # four large shapes may not fit: shrinking ends the search


def _stamp(
    picture: Image.Image, colour: Rgb, form: Form, *, centre: Point, radius_px: float, tilt_deg: float
) -> None:
    """Paint one shape onto the picture, through a mask drawn larger and reduced."""
    left, top = math.floor(centre[0] - radius_px), math.floor(centre[1] - radius_px)
    side_px = (math.ceil(2 * radius_px) + 2) * _SUPERSAMPLING
    mask = Image.new("L", (side_px, side_px))
    pen = ImageDraw.Draw(mask)
    cos, sin = math.cos(math.radians(tilt_deg)) * radius_px, math.sin(math.radians(tilt_deg)) * radius_px

    def placed(outline: Outline) -> list[Point]:
        turned = [(centre[0] + x * cos - y * sin, centre[1] + x * sin + y * cos) for x, y in outline]
        return [((x - left) * _SUPERSAMPLING, (y - top) * _SUPERSAMPLING) for x, y in turned]

    pen.polygon(placed(form.outline), fill=255)
    if form.hole:
        pen.polygon(placed(form.hole), fill=0)
    picture.paste(colour, (left, top), mask.reduce(_SUPERSAMPLING))
