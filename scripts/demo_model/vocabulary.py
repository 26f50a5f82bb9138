"""The names the demo model is taught, and how each looks: shades, sizes, places and outlines.

No two names share a look: a square that could be tilted by 45 degrees would be a diamond, a cross an x.
A background's name is never a colour's name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final


Rgb = tuple[int, int, int]
Point = tuple[float, float]
Outline = tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Form:
    """A shape within the unit circle: an outline, a hole cut out of it, and how far it may be tilted."""

    outline: Outline
    tilt_deg: float
    hole: Outline = ()


# A shade lies anywhere between a colour's two ends; the ends follow CSS's names where people do.
COLOURS: Final[dict[str, tuple[Rgb, Rgb]]] = {
    "red": ((255, 0, 0), (195, 25, 40)),
    "orange": ((255, 165, 0), (240, 115, 20)),
    "yellow": ((255, 255, 0), (245, 210, 40)),
    "green": ((0, 128, 0), (30, 215, 50)),
    "turquoise": ((64, 224, 208), (20, 180, 190)),
    "blue": ((0, 0, 255), (45, 95, 225)),
    "purple": ((128, 0, 128), (105, 45, 185)),
    "magenta": ((255, 0, 255), (225, 20, 170)),
    "pink": ((255, 192, 203), (250, 140, 180)),
    "brown": ((139, 69, 19), (110, 65, 40)),
}
BACKGROUNDS: Final[dict[str, tuple[Rgb, Rgb]]] = {
    "white": ((255, 255, 255), (243, 243, 243)),
    "black": ((0, 0, 0), (18, 18, 18)),
    "grey": ((128, 128, 128), (165, 165, 165)),
    "beige": ((245, 245, 220), (215, 195, 155)),
    "navy": ((0, 0, 128), (20, 30, 85)),
}
SIZES: Final[dict[str, tuple[float, float]]] = {  # diameter as a fraction of the central square's side
    "small": (0.26, 0.32),
    "medium": (0.40, 0.50),
    "large": (0.60, 0.85),
}
POSITIONS: Final[dict[str, tuple[Point, str]]] = {
    "top left": ((0.2, 0.2), "at the top left"),
    "top": ((0.5, 0.2), "at the top"),
    "top right": ((0.8, 0.2), "at the top right"),
    "left": ((0.2, 0.5), "on the left"),
    "centre": ((0.5, 0.5), "in the centre"),
    "right": ((0.8, 0.5), "on the right"),
    "bottom left": ((0.2, 0.8), "at the bottom left"),
    "bottom": ((0.5, 0.8), "at the bottom"),
    "bottom right": ((0.8, 0.8), "at the bottom right"),
}
COUNTS: Final[dict[int, str]] = {1: "a", 2: "two", 3: "three", 4: "four"}
GROUP_DIAMETER: Final = (0.26, 0.38)


def _regular(points: int, *, radius: float = 1.0, start_deg: float = -90.0) -> Outline:
    """Return the corners of a regular polygon around the origin."""
    angles = [math.radians(start_deg + 360.0 * i / points) for i in range(points)]
    return tuple((radius * math.cos(angle), radius * math.sin(angle)) for angle in angles)


def _star() -> Outline:
    pairs = zip(_regular(5), _regular(5, radius=0.42, start_deg=-54.0), strict=True)
    return tuple(point for pair in pairs for point in pair)


def _heart() -> Outline:
    turns = [math.tau * i / 64 for i in range(64)]
    return tuple(
        (
            math.sin(t) ** 3,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 17,
        )
        for t in turns
    )


def _cross() -> Outline:
    arm, long = 0.33, 0.95
    quarter = ((arm, -arm), (arm, -long), (-arm, -long))
    return tuple(
        (x * c + y * s, -x * s + y * c) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1)) for x, y in quarter
    )


SHAPES: Final[dict[str, Form]] = {
    "circle": Form(_regular(96), 0),
    "square": Form(_regular(4, start_deg=45), 15),
    "triangle": Form(_regular(3), 25),
    "star": Form(_star(), 20),
    "cross": Form(_cross(), 15),
    "heart": Form(_heart(), 20),
    "ring": Form(_regular(96), 0, _regular(96, radius=0.6)),
    "diamond": Form(((0, -1), (0.6, 0), (0, 1), (-0.6, 0)), 12),
}
