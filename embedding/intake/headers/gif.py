"""GIF: the size of its first frame's canvas; CompuServe GIF89a.

Comments and applications' extensions are dropped; of what precedes the first frame only its transparency
is kept. Later frames stay in the payload, where nothing looks for them.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from embedding.errors import DecodeError
from embedding.intake.headers.header import DAMAGED, Header


if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNATURES: Final = (b"GIF87a", b"GIF89a")
# XMP in a GIF is text read as block lengths: a few hundred blocks.
MAX_BLOCKS: Final = 20_000

_EXTENSION, _GRAPHIC_CONTROL, _FRAME = 0x21, 0xF9, 0x2C
_SCREEN_BYTES: Final = 13


def read(data: bytes) -> Header:
    """Return the header of *data*; raises DecodeError, IndexError or struct.error if it has none."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = start = _SCREEN_BYTES + _palette_bytes(flags)
    control = b""
    budget = iter(range(MAX_BLOCKS))
    for _ in budget:
        kind = data[position]
        if kind == _FRAME:
            break
        if kind == _EXTENSION:
            end = _end_of_blocks(data, position + 2, budget)
            if data[position + 1] == _GRAPHIC_CONTROL:
                control = data[position:end]
            position = end
        elif kind == 0:
            position += 1  # padding, which some encoders leave
        else:
            raise DecodeError(DAMAGED)
    else:
        raise _too_many_blocks()
    left, top, frame_width, frame_height = struct.unpack_from("<HHHH", data, position + 1)
    payload = b"".join((data[:start], control, data[position:]))
    return Header("GIF", max(width, left + frame_width), max(height, top + frame_height), payload, 1)


def _palette_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _end_of_blocks(data: bytes, position: int, budget: Iterator[int]) -> int:
    for _ in budget:
        if not data[position]:
            return position + 1
        position += data[position] + 1
    raise _too_many_blocks()


def _too_many_blocks() -> DecodeError:
    return DecodeError(f"image has more than {MAX_BLOCKS} blocks before its first frame, which is the limit")
