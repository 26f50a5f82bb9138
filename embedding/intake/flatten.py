"""Any decoded picture to plain grey or RGB: what a person would see on a white page.

Pillow's `convert("RGB")` alone shows the colours hidden under transparent pixels, and clips 16-bit grey to
white. Here transparency of every kind is composed on white, 16 bits are scaled to 8, palettes and CMYK become
RGB, and colour profiles are ignored, as in open_clip's training. A plain picture is not copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image


if TYPE_CHECKING:
    from embedding.intake.headers import Header

_WHITE: Final = 255
_LEVELS: Final = 256
_PAGES: Final = {"LA": "L", "RGBA": "RGB"}
_GREYS: Final = frozenset({"1", "L", "I;16"})


def flatten(image: Image.Image, header: Header) -> Image.Image:
    """Return *image*, decoded, in mode L or RGB and of the same size; grey stays grey."""
    key = image.info.pop("transparency", None)
    if image.mode in _PAGES:
        return _on_white(image, _PAGES[image.mode])
    if image.mode == "P":
        return _palette_on_white(image, key)
    if image.mode in _GREYS:
        return _grey(image, key, header)
    if key is not None:
        return _rgb_with_key(image, key, header)
    return image if image.mode == "RGB" else image.convert("RGB")


def _on_white(image: Image.Image, mode: str) -> Image.Image:
    page = Image.new(mode, image.size, "white")
    page.paste(image, mask=image)
    return page


def _grey(image: Image.Image, key: int | None, header: Header) -> Image.Image:
    if image.mode == "I;16":
        return _grey_from_16_bits(image, key)
    if key is None:
        return image.convert("L") if image.mode == "1" else image
    levels = list(range(_LEVELS))
    transparent = key * _WHITE // ((1 << header.bit_depth) - 1)  # the file counts in its own depth
    if transparent < _LEVELS:
        levels[transparent] = _WHITE
    return image.convert("L").point(levels)


def _grey_from_16_bits(image: Image.Image, key: int | None) -> Image.Image:
    if key is not None:
        values = np.array(image)
        values[values == key] = 0xFFFF
        image = Image.fromarray(values)
    return image.point(lambda value: value * (1 / _LEVELS)).convert("L")


def _rgb_with_key(image: Image.Image, key: tuple[int, int, int], header: Header) -> Image.Image:
    image.info["transparency"] = tuple(level >> header.bit_depth - 8 for level in key)
    return _on_white(image.convert("RGBA"), "RGB")


def _palette_on_white(image: Image.Image, key: int | bytes | None) -> Image.Image:
    """Compose the palette's colours rather than every pixel; *key* is one clear index, or alphas in order."""
    if key is not None:
        colours = np.array(image.getpalette("RGBA"), dtype=np.uint8).reshape(1, -1, 4)
        if isinstance(key, int):
            colours[:, key : key + 1, 3] = 0
        else:
            alphas = np.frombuffer(key, dtype=np.uint8)[: colours.shape[1]]
            colours[:, : len(alphas), 3] = alphas
        image.putpalette(_on_white(Image.fromarray(colours), "RGB").tobytes())
    return image.convert("RGB")
