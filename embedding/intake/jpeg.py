"""A JPEG to RGB pixels by libjpeg-turbo alone: Pillow's pixels in half to two thirds of its time.

Both run the same library, with the accurate DCT and the smooth upsampling; Pillow copies the rows once more.
Contract: a file of which libjpeg so much as warns is handed back, so that what is damaged, cut short or odd
has one judge, which is Pillow. Of 200,000 mutated files that were read here, Pillow gave other pixels for
none; it refuses only those with a marker TEM, which libjpeg skips as the standard asks. The output is
allocated by the header that was checked, and no file can make it larger.

A file handed back was decoded twice, so `image` sends large ones of many scans to Pillow at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import simplejpeg  # type: ignore[import-untyped]  # typed, but without the marker


if TYPE_CHECKING:
    import numpy.typing as npt

    from embedding.intake.headers import Header

_COMPONENTS: Final = frozenset({1, 3})  # grey, and YCbCr or RGB; two are in no standard, four are CMYK


def is_plain(header: Header) -> bool:
    """Return whether *header* is of a JPEG that is read here: grey, YCbCr or RGB."""
    return header.format == "JPEG" and header.bytes_per_pixel in _COMPONENTS


def decode_rgb(header: Header) -> npt.NDArray[np.uint8] | None:
    """Return the pixels of *header*'s JPEG as stored, (H, W, 3) uint8, RGB; grey is three times the same.

    Returns None if the file is damaged, or is not of a kind that is read here.
    """
    if not is_plain(header):
        return None
    pixels = np.empty((header.height, header.width, 3), dtype=np.uint8)
    try:
        decoded = simplejpeg.decode_jpeg(header.payload, colorspace="RGB", buffer=pixels, strict=True)
    except ValueError:
        return None
    return pixels if decoded.shape == pixels.shape else None
