"""PNG: sizes and orientation from its chunks; W3C PNG, third edition, section 5.

An animation's frames are dropped, so what is left is the still picture that every PNG has.
"""

from __future__ import annotations

import struct
from typing import Final

from embedding.errors import DecodeError
from embedding.intake.headers.exif import UPRIGHT, orientation
from embedding.intake.headers.header import Header


SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
# Encoders write chunks of 8 KB or more, so 1,280 in 10 MiB. Pillow takes up to 2 microseconds for each.
MAX_CHUNKS: Final = 20_000

_KEPT: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_KEYED: Final = {0: 2, 2: 6}  # with a transparent colour: what it amounts to, as RGB is copied twice for it
_AROUND_CONTENT: Final = 12  # length, type and checksum


def read(data: bytes) -> Header:
    """Return the header of *data*; raises DecodeError or struct.error if it has none."""
    width, height, bit_depth, colour_type = struct.unpack_from(">IIBB", data, 16)
    kept = [SIGNATURE]
    channels = _CHANNELS.get(colour_type, 1)
    turned = UPRIGHT
    position = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if position + 8 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + _AROUND_CONTENT + length
        if kind in _KEPT:
            kept.append(data[position:end])
        elif kind == b"eXIf":
            turned = orientation(data[position + 8 : end])
        if kind == b"tRNS":
            channels = _KEYED.get(colour_type, channels)
        if kind == b"IEND":
            break
        position = end
    else:
        raise DecodeError(f"image has more than {MAX_CHUNKS} chunks, which is the limit")
    bytes_per_pixel = max(1, channels * bit_depth // 8)
    return Header(
        "PNG", width, height, b"".join(kept), bytes_per_pixel, orientation=turned, bit_depth=bit_depth
    )
