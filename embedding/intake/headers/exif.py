"""The one tag of EXIF that decides what a picture looks like.

Broken EXIF never refuses a picture: whatever cannot be read means upright, as in every browser.
"""

from __future__ import annotations

import struct
from typing import Final


PREFIX: Final = b"Exif\0\0"
UPRIGHT: Final = 1

_BYTE_ORDERS: Final = {b"II*\0": "<", b"MM\0*": ">"}
_ORIENTATION_TAG: Final = 0x0112
_SHORT: Final = 3
_ENTRY_BYTES: Final = 12
_ORIENTATIONS: Final = range(1, 9)


def orientation(block: bytes) -> int:
    """Return the orientation (1 to 8) that *block* asks for: an EXIF block, with or without its prefix."""
    tiff = block.removeprefix(PREFIX)
    order = _BYTE_ORDERS.get(tiff[:4])
    if order is None:
        return UPRIGHT
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, directory)
        first = directory + 2
        for offset in range(first, first + entries * _ENTRY_BYTES, _ENTRY_BYTES):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, offset)
            if tag == _ORIENTATION_TAG:
                return value if kind == _SHORT and value in _ORIENTATIONS else UPRIGHT
    except struct.error:
        pass
    return UPRIGHT
