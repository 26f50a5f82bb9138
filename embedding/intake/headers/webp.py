"""WebP: size and orientation from its chunks; RFC 9649.

The size is needed before libwebp is: its decoder allocates the canvas when it is made. All parsing
beyond that is libwebp's own, in C, so nothing is dropped.
"""

from __future__ import annotations

import struct
from typing import Final

from embedding.errors import DecodeError
from embedding.intake.headers.exif import UPRIGHT, orientation
from embedding.intake.headers.header import DAMAGED, Header


SIGNATURE: Final = b"RIFFWEBP"  # bytes 0 to 4 and 8 to 12
MAX_CHUNKS: Final = 20_000  # one for each frame of an animation

_FIRST_CHUNK: Final = 12
_LOSSY_START: Final = b"\x9d\x01\x2a"
_SIDE: Final = 0x3FFF  # 14 bits
_HAS_EXIF: Final = 0x08


def read(data: bytes) -> Header:
    """Return the header of *data*; raises DecodeError, IndexError or struct.error if it has none."""
    kind = data[12:16]
    turned = UPRIGHT
    if kind == b"VP8 " and data[23:26] == _LOSSY_START:
        width, height = (side & _SIDE for side in struct.unpack_from("<HH", data, 26))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & _SIDE) + 1, (bits >> 14 & _SIDE) + 1
    elif kind == b"VP8X":
        low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", data, 24)
        width, height = (high_width << 16 | low_width) + 1, (high_height << 16 | low_height) + 1
        turned = orientation(_exif(data)) if data[20] & _HAS_EXIF else UPRIGHT
    else:
        raise DecodeError(DAMAGED)
    return Header("WEBP", width, height, data, 4, orientation=turned)


def _exif(data: bytes) -> bytes:
    position = _FIRST_CHUNK
    for _ in range(MAX_CHUNKS):
        if position + 8 > len(data):
            break
        kind, length = struct.unpack_from("<4sI", data, position)
        if kind == b"EXIF":
            return data[position + 8 : position + 8 + length]
        position += 8 + length + length % 2
    return b""
