"""Pixels of any size to the model's square by torch: `resize.fit` for arrays, in a third of its time.

torch resizes bytes with vector instructions and weights of 16 bits, where Pillow has 22, so that a value may
differ from the reference's by one level of 255, and fewer than 0.01 % by two (more in pictures under 16
pixels); the tests assert it. Like Pillow it rounds and clips between the two axes, always columns first;
where the reference takes rows first, so do two calls here: the wrong order costs up to 20 levels.

torch resizes the whole picture, and a crop throws part of it away. Up to three times as long as wide that is
still the faster way (measured from 10 to 8000 pixels); beyond, `suits` says no, and Pillow, which computes
only what survives, also bounds what a thin picture can ask for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from embedding.intake.resize import EXCHANGED, columns_first


if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    from embedding.intake.preprocess import Preprocess

    Pixels = npt.NDArray[np.uint8]

MAX_ASPECT: Final = 3
_KERNELS: Final[Mapping[str, Callable[..., Any]]] = {
    "bicubic": torch.ops.aten._upsample_bicubic2d_aa.out,  # noqa: SLF001  no public form takes an output
    "bilinear": torch.ops.aten._upsample_bilinear2d_aa.out,  # noqa: SLF001
}
# From stored to upright, by EXIF's orientation; views, not copies.
_TO_UPRIGHT: Final[Mapping[int, Callable[[Any], Any]]] = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}


def suits(width: int, height: int, preprocess: Preprocess) -> bool:
    """Return whether `fit_pixels` is the way for a picture of *width* and *height*, either way round."""
    return max(preprocess.scaled(width, height)) <= MAX_ASPECT * preprocess.size


def fit_pixels(pixels: Pixels, preprocess: Preprocess, *, orientation: int = 1) -> Pixels:
    """Return *pixels*, (H, W, 3) RGB, stored in *orientation* (EXIF, 1 to 8), as the model's upright square.

    The square is (S, S, 3), contiguous and its own memory; *pixels* must be contiguous and writable.
    """
    height, width = pixels.shape[:2]
    exchanged = orientation in EXCHANGED
    upright = (height, width) if exchanged else (width, height)
    scaled = preprocess.scaled(*upright)
    stored_scaled = scaled[::-1] if exchanged else scaled
    rows_first = columns_first(upright, scaled) == exchanged
    small = _resized(pixels, stored_scaled, preprocess.interpolation, rows_first=rows_first)
    return _square(_TO_UPRIGHT[orientation](small), preprocess)


def _resized(pixels: Pixels, size: tuple[int, int], interpolation: str, *, rows_first: bool) -> Pixels:
    """Return *pixels* resized to *size*, (width, height)."""
    width, height = size
    if rows_first:
        pixels = _interpolated(pixels, height, pixels.shape[1], interpolation)
    return _interpolated(pixels, height, width, interpolation)


def _interpolated(pixels: Pixels, height: int, width: int, interpolation: str) -> Pixels:
    """Do what torch.nn.functional.interpolate does; its own output would have the planes apart.

    Putting those together takes a fourth of the time again.
    """
    source = torch.from_numpy(pixels[None]).permute(0, 3, 1, 2)  # (1, 3, H, W), channels last
    target = torch.empty((1, 3, height, width), dtype=torch.uint8, memory_format=torch.channels_last)
    _KERNELS[interpolation](source, (height, width), align_corners=False, out=target)
    interpolated: Pixels = target.permute(0, 2, 3, 1)[0].numpy()
    return interpolated


def _square(pixels: Pixels, preprocess: Preprocess) -> Pixels:
    """Return the middle of *pixels*, or *pixels* in the middle of the fill colour."""
    size = preprocess.size
    height, width = pixels.shape[:2]
    top, left = (max(0, round((side - size) / 2)) for side in (height, width))
    middle = pixels[top : top + size, left : left + size]
    height, width = middle.shape[:2]
    if (height, width) == (size, size):
        return middle.copy()
    square: Pixels = np.full((size, size, 3), preprocess.fill_color, dtype=np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = middle
    return square
