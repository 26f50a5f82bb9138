"""A decoded picture of any size to the model's square, equal to open_clip's evaluation transform.

The reference resizes the whole picture, then crops. Here only what survives is computed, and EXIF's
orientation is applied to the small square: a third less time for a phone's picture, and none of the memory
that turning a large one takes. Two things keep the pixels equal.

Pillow resizes one axis after the other and rounds in between, so the order of the axes matters. It chooses by
the sizes; here it is made to take the order that it takes for the reference.

The crop's edges reach Pillow as float32, which moves some filter weights by the last bit: a pixel may differ
by one level of 255. The tests assert how many do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from PIL import Image
from PIL.Image import Resampling, Transpose


if TYPE_CHECKING:
    from embedding.intake.preprocess import Preprocess

_FILTERS: Final = {"bicubic": Resampling.BICUBIC, "bilinear": Resampling.BILINEAR}
_TO_UPRIGHT: Final = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
# Orientations in which the stored picture has its axes exchanged, its columns or its rows reversed.
EXCHANGED: Final = frozenset({5, 6, 7, 8})
_COLUMNS_REVERSED: Final = frozenset({2, 3, 7, 8})
_ROWS_REVERSED: Final = frozenset({3, 4, 6, 7})


class _Window(NamedTuple):
    """Along one axis: how many pixels come out, and of which part of the source."""

    pixels: int
    start: float
    end: float


def fit(image: Image.Image, preprocess: Preprocess, *, orientation: int = 1) -> Image.Image:
    """Return *image*, RGB or L, stored in *orientation* (EXIF, 1 to 8), as the model's upright RGB square."""
    exchanged = orientation in EXCHANGED
    upright = (image.height, image.width) if exchanged else image.size
    scaled = preprocess.scaled(*upright)
    columns, rows = (_window(*axis, preprocess.size) for axis in zip(upright, scaled, strict=True))
    if exchanged:
        columns, rows = rows, columns
    if orientation in _COLUMNS_REVERSED:
        columns = _reversed(columns, image.width)
    if orientation in _ROWS_REVERSED:
        rows = _reversed(rows, image.height)
    resampling = _FILTERS[preprocess.interpolation]
    across_first = columns_first(upright, scaled) != exchanged
    small = _resample(image, columns, rows, resampling, across_first=across_first)
    if orientation in _TO_UPRIGHT:
        small = small.transpose(_TO_UPRIGHT[orientation])
    return _pad(small.convert("RGB"), preprocess)


def _window(source: int, scaled: int, size: int) -> _Window:
    if scaled <= size:
        return _Window(scaled, 0.0, source)
    first = round((scaled - size) / 2)
    return _Window(size, first * source / scaled, min(source, (first + size) * source / scaled))


def _reversed(window: _Window, source: int) -> _Window:
    return _Window(window.pixels, source - window.end, source - window.start)


def columns_first(source: tuple[int, int], target: tuple[int, int]) -> bool:
    """Return Pillow's choice for two sizes, (width, height): columns, unless rows save twice as much.

    See Resample.c, ImagingResampleInner.
    """
    fewer_columns, fewer_rows = source[0] - target[0], source[1] - target[1]
    return not (fewer_rows > 0 and fewer_rows > 2 * fewer_columns)


def _resample(
    image: Image.Image, columns: _Window, rows: _Window, resampling: Resampling, *, across_first: bool
) -> Image.Image:
    width, left, right = columns
    height, top, bottom = rows
    if columns_first(image.size, (width, height)) == across_first:
        return image.resize((width, height), resampling, box=(left, top, right, bottom))
    if across_first:
        narrow = image.resize((width, image.height), resampling, box=(left, 0, right, image.height))
        return narrow.resize((width, height), resampling, box=(0, top, width, bottom))
    low = image.resize((image.width, height), resampling, box=(0, top, image.width, bottom))
    return low.resize((width, height), resampling, box=(left, 0, right, height))


def _pad(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    size = preprocess.size
    if image.size == (size, size):
        return image
    square = Image.new("RGB", (size, size), (preprocess.fill_color,) * 3)
    square.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return square
