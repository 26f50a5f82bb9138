"""The facts that all readers return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal


DAMAGED: Final = "image is damaged or cut short"

Format = Literal["JPEG", "PNG", "GIF", "WEBP"]


@dataclass(frozen=True, slots=True)
class Header:
    """An image's format and its price, known before it is decoded.

    *width* and *height* are as stored; *orientation* (EXIF, 1 to 8) is still to be applied.
    *scanned_components* counts the components of each scan. *is_buffered*: its decoder keeps the coefficients
    of the whole picture, since one pass over the file does not give a row.
    *payload* is the file without what does not decide the pixels.
    """

    format: Format
    width: int
    height: int
    payload: bytes
    bytes_per_pixel: int
    orientation: int = 1
    scans: int = 1
    scanned_components: int = 1
    is_buffered: bool = False
    bit_depth: int = 8
