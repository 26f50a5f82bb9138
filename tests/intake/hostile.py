"""Files that ask for more than they hold: generators, so that no bomb lies in the repository."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image


MEBIBYTE = 1 << 20
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6


def encode(image, kind, **options):
    """Return *image*, an array or a picture, as a file of *kind*."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind, content):
    """Return a PNG chunk."""
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(width, height, colour_type, rows, *, depth=8, extra=b"", interlaced=False):
    """Return a PNG of *rows*, the filtered bytes before compression."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlaced)
    return b"".join(
        (
            PNG_SIGNATURE,
            chunk(b"IHDR", header),
            extra,
            chunk(b"IDAT", rows),
            chunk(b"IEND", b""),
        )
    )


def flat_png(width, height, colour_type, *, depth=8, interlaced=False, extra=b""):
    """Return a PNG whose pixels are nearly free to store and slow to unfilter (Paeth)."""
    channels = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}[colour_type]
    packer = zlib.compressobj(1)
    packed = []
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [
            (0, 0, 8, 8),
            (4, 0, 8, 8),
            (0, 4, 4, 8),
            (2, 0, 4, 4),
            (0, 2, 2, 4),
            (1, 0, 2, 2),
            (0, 1, 1, 2),
        ]
    for left, top, across, down in passes:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        row = b"\4" + bytes([1]) * -(-columns * channels * depth // 8)
        packed += [packer.compress(row) for _ in range(rows if columns > 0 else 0)]
    packed.append(packer.flush())
    return png(width, height, colour_type, b"".join(packed), depth=depth, extra=extra, interlaced=interlaced)


def scan_bomb(width, height, *, scans):
    """Return a progressive JPEG that repeats its last scan until it has *scans*."""
    file = encode(Image.new("RGB", (width, height), (200, 30, 90)), "JPEG", progressive=True, subsampling=0)
    last = file.rindex(b"\xff\xda")
    body = file[last:-2]
    return file[:-2] + body * (scans - file.count(b"\xff\xda")) + b"\xff\xd9"


def jpeg_with(segments, image=None):
    """Return a small JPEG with *segments* right after its start."""
    file = encode(image or Image.new("RGB", (64, 48), (200, 30, 90)), "JPEG")
    return file[:2] + segments + file[2:]


def segment(marker, content):
    """Return a JPEG segment."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def exif(orientation, *, order=">", kind=3):
    """Return an EXIF block that holds nothing but an orientation."""
    head = {">": b"MM\0*", "<": b"II*\0"}[order]
    return head + struct.pack(f"{order}IHHHIHHI", 8, 1, 0x0112, kind, 1, orientation, 0, 0)


def exif_of_many_tags(tags):
    """Return an EXIF block whose tags all point out of it: Pillow warns of each."""
    entries = b"".join(struct.pack(">HHII", tag, 1, 1 << 30, 8) for tag in range(tags))
    return b"MM\0*" + struct.pack(">IH", 8, tags) + entries + bytes(4)


def gif_with(blocks):
    """Return a small GIF with *blocks* before its frame."""
    file = encode(Image.new("P", (16, 16)), "GIF")
    start = 13 + (3 << ((file[10] & 7) + 1) if file[10] & 0x80 else 0)
    return file[:start] + blocks + file[start:]


def deflate_flood(size):
    """Return *size* bytes of deflate blocks that each describe a code and use it for nothing."""
    # One dynamic block: 257 literal codes of which only the end has a length, one distance code.
    fields = [(0, 1), (2, 2), (0, 5), (0, 5), (14, 4)]
    order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1]
    fields += [(1 if code in {1, 18} else 0, 3) for code in order]
    fields += [(1, 1), (138 - 11, 7), (1, 1), (118 - 11, 7), (0, 1), (0, 1), (0, 1)]
    block = length = 0
    for value, bits in fields * 8:
        block |= value << length
        length += bits
    blocks = block.to_bytes(length // 8, "little")
    return b"\x78\x01" + blocks * (size // len(blocks))
