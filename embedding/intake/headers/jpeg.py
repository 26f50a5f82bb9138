"""JPEG: sizes, scans and orientation from its segments; ITU-T T.81, annex B.

Threat: a progressive file may repeat a scan, and 75 bytes more cost 43 ms more at 50 megapixels, and a scan
of three components three times that; so scans are counted, and components in them. Arithmetic coding is
refused: it packs any number of coefficients into no bytes at all, and no browser reads it. Only baseline,
extended sequential and progressive files with Huffman coding pass. A phone's second pictures (MPO) lie behind
the end of the first and are dropped.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from embedding.errors import DecodeError
from embedding.intake.headers.exif import PREFIX, UPRIGHT, orientation
from embedding.intake.headers.header import DAMAGED, Header


SIGNATURE: Final = b"\xff\xd8\xff"
# The most in a picture of the test corpora is 28; 10 MB of ICC profile take 160.
MAX_SEGMENTS: Final = 1000

# A marker: not a stuffed zero, a restart or a fill byte.
_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_END_OF_IMAGE: Final = 0xD9
_ALONE: Final = frozenset({0x01, 0xD8})  # markers without a length
_START_OF_SCAN: Final = 0xDA
_EXIF: Final = 0xE1
# APP1 to APP15 but Adobe's APP14, which tells how colours are stored, and comments.
_DROPPED: Final = frozenset({*range(0xE1, 0xF0), 0xFE} - {0xEE})
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # those three are tables
_PROGRESSIVE: Final = 0xC2
_HUFFMAN_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2})


def read(data: bytes) -> Header:
    """Return the header of *data*; raises DecodeError, IndexError or struct.error if it has none."""
    kept = [data[:2]]
    frame = b""
    scans = scanned_components = 0
    is_progressive = False
    exif = None
    position = 2
    for _ in range(MAX_SEGMENTS):
        position, marker = _next_marker(data, position)
        if marker == _END_OF_IMAGE:
            kept.append(data[position : position + 2])
            break
        end = _end_of_segment(data, position, marker)
        segment = data[position + 4 : end]
        if marker == _EXIF and exif is None and segment.startswith(PREFIX):
            exif = segment
        elif marker in _FRAMES:
            frame = frame or _huffman_frame(marker, segment)
            is_progressive |= marker == _PROGRESSIVE
        elif marker == _START_OF_SCAN:
            scans += 1
            scanned_components += segment[0]
            end = _next_marker(data, end)[0]
        if marker not in _DROPPED:
            kept.append(data[position:end])
        position = end
    else:
        raise DecodeError(f"image has more than {MAX_SEGMENTS} segments, which is the limit")
    if not frame or not scans:
        raise DecodeError(DAMAGED)
    height, width, components = struct.unpack_from(">HHB", frame, 1)
    turned = orientation(exif) if exif else UPRIGHT
    is_buffered = is_progressive or scans > 1 or scanned_components < components
    counted = (turned, scans, scanned_components, is_buffered)
    return Header("JPEG", width, height, b"".join(kept), components, *counted)


def _next_marker(data: bytes, position: int) -> tuple[int, int]:
    """Return where the next marker is, and which; the end of a file without one counts as its last."""
    found = _MARKER.search(data, position)
    return (found.start(), data[found.start() + 1]) if found else (len(data), _END_OF_IMAGE)


def _end_of_segment(data: bytes, position: int, marker: int) -> int:
    if marker in _ALONE:
        return position + 2
    (length,) = struct.unpack_from(">H", data, position + 2)
    return position + 2 + max(2, int(length))


def _huffman_frame(marker: int, segment: bytes) -> bytes:
    if marker not in _HUFFMAN_FRAMES:
        raise DecodeError("image is a JPEG in a rare coding, arithmetic or lossless, which is not read")
    return segment
