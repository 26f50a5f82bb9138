"""How a model wants its pictures: open_clip's evaluation transform, as data.

Reference: open_clip `transform.py`, `PreprocessCfg` and `image_transform_v2` with `is_train=False`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from embedding.errors import StartupError


if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Interpolation = Literal["bicubic", "bilinear"]
ResizeMode = Literal["shortest", "squash", "longest"]
Colour = tuple[float, float, float]

OPENAI_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD: Final = (0.26862954, 0.26130258, 0.27577711)
MAX_SIZE: Final = 4096
_WHITE: Final = 255


@dataclass(frozen=True, slots=True)
class Preprocess:
    """Square side in pixels, how to get there, and what the model subtracts and divides by (0 to 1, RGB)."""

    size: int = 224
    interpolation: Interpolation = "bicubic"
    resize_mode: ResizeMode = "shortest"
    fill_color: int = 0
    mean: Colour = OPENAI_MEAN
    std: Colour = OPENAI_STD

    def __post_init__(self) -> None:
        if not 1 <= self.size <= MAX_SIZE:
            raise StartupError(f"preprocess size is {self.size}; it must be 1 to {MAX_SIZE}")
        if self.interpolation not in get_args(Interpolation):
            raise StartupError(f"preprocess interpolation is {self.interpolation!r}, not bicubic or bilinear")
        if self.resize_mode not in get_args(ResizeMode):
            raise StartupError(
                f"preprocess resize_mode is {self.resize_mode!r}, not shortest, squash or longest"
            )
        if not 0 <= self.fill_color <= _WHITE:
            raise StartupError(f"preprocess fill_color is {self.fill_color}; it must be 0 to {_WHITE}")
        if not all(map(math.isfinite, self.mean)) or not all(0 < std < math.inf for std in self.std):
            raise StartupError("preprocess mean and std must be finite, and std positive")

    @classmethod
    def from_config(cls, preprocess_cfg: Mapping[str, Any]) -> Preprocess:
        """Return what `preprocess_cfg` of an open_clip config asks for; keys left out have its defaults.

        Raises StartupError for a size that is not square, and whatever else it cannot do exactly.
        """
        given = {key: value for key, value in preprocess_cfg.items() if value is not None}
        if given.get("mode", "RGB") != "RGB":
            raise StartupError(f"preprocess mode is {given['mode']!r}; only RGB is served")
        try:
            return cls(**{key: read(given[key]) for key, read in _READERS.items() if key in given})
        except (TypeError, ValueError) as exc:
            raise StartupError("preprocess_cfg holds a value of the wrong type") from exc

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """Return the (width, height) that an upright image is resized to, before cropping or padding."""
        size = self.size
        if self.resize_mode == "squash":
            return size, size
        if self.resize_mode == "longest":
            ratio = max(width / size, height / size)
            return max(1, round(width / ratio)), max(1, round(height / ratio))
        if width <= height:
            return size, int(size * height / width)
        return int(size * width / height), size


def _side(size: Any) -> int:
    sides = set(size) if isinstance(size, list | tuple) else {size}
    if len(sides) != 1:
        raise StartupError(f"preprocess size is {size}; only squares are served")
    return int(sides.pop())


def _colour(value: Any) -> Colour:
    red, green, blue = value if isinstance(value, list | tuple) else (value,) * 3
    return float(red), float(green), float(blue)


_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "size": _side,
    "interpolation": str,
    "resize_mode": str,
    "fill_color": int,
    "mean": _colour,
    "std": _colour,
}
