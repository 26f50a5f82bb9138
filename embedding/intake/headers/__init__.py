"""What an image file says of itself, read before any decoder sees it.

Threat: work that is cheap to ask for. Pillow parses headers in Python, holding the interpreter lock: ten
megabytes of empty JPEG segments take it 2.7 seconds, of fill bytes 4.0, of PNG text 1.7, of compressed ICC
profiles 5.8, and broken EXIF makes it warn line by line. So each reader here walks its container once, with
a bound on the number of parts, and hands on only what decides the pixels: no EXIF, ICC, XMP, text,
thumbnails or second pictures. Size and orientation are taken on the way.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from embedding.errors import DecodeError
from embedding.intake.headers import gif, jpeg, png, webp
from embedding.intake.headers.header import DAMAGED, Header


if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DAMAGED", "Header", "read_header"]


def read_header(data: bytes) -> Header:
    """Return what *data*, a whole file, says of itself.

    Raises DecodeError unless it begins as a JPEG, PNG, WebP or GIF with at least one pixel.
    """
    read = _reader(data)
    try:
        header = read(data)
    except (struct.error, IndexError) as exc:
        raise DecodeError(DAMAGED) from exc
    if min(header.width, header.height) < 1:
        raise DecodeError(DAMAGED)
    return header


def _reader(data: bytes) -> Callable[[bytes], Header]:
    if data.startswith(jpeg.SIGNATURE):
        return jpeg.read
    if data.startswith(png.SIGNATURE):
        return png.read
    if data.startswith(gif.SIGNATURES):
        return gif.read
    if data[:4] + data[8:12] == webp.SIGNATURE:
        return webp.read
    raise DecodeError("image is not a JPEG, PNG, WebP or GIF")
