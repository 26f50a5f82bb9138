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


def deflate_flood(size, packed=b""):
    """Return deflate blocks of *size* bytes that each describe a code and use it for nothing, then *packed*.

    *packed* is a zlib stream. A block of 22 bytes costs zlib as much as a table of 512 entries takes to fill.
    """
    # One dynamic block: 257 literal codes of 8 and 9 bits, no distance code; lengths 16 (repeat), 8, 9 and 0.
    fields = [(0, 1), (2, 2), (0, 5), (0, 5), (3, 4)]
    fields += [({16: 1, 8: 2, 9: 3, 0: 3}.get(code, 0), 3) for code in (16, 17, 18, 0, 8, 7, 9)]
    eight, nine, none = (0b01, 2), (0b111, 3), (0b011, 3)  # Huffman codes go in bit by bit, first bit first
    fields += [eight, *[(0, 1), (3, 2)] * 42, eight, eight, nine, nine, none, (0b1_1111_1111, 9)]
    block = length = 0
    for value, bits in fields * 8:
        block |= value << length
        length += bits
    blocks = block.to_bytes(length // 8, "little")
    return b"\x78\x01" + blocks * (size // len(blocks)) + packed[2:]


_ALIKE = "00"  # a block of JPEG: no difference to the one before, end of block
FAR = "0" + "10" * 3 + "1101"  # one number, in the last place: all 64 are transformed
DENSE = "0" + "11101" * 63  # a number in every place


def flat_jpeg(width, height, *, sampling=((1, 1),) * 3, scans=None, block=_ALIKE, restart=0, precision=8):
    """Return a sequential JPEG whose blocks are all of the bits *block*, in any layout that there is.

    *sampling* has (across, down) for each component, *scans* the components of each scan; by default one
    scan has them all. *restart* puts a marker after so many units.
    """
    count = len(sampling)
    across, down = (max(factors) for factors in zip(*sampling, strict=True))
    parts = [
        b"\xff\xd8",
        segment(0xDB, b"\0" + b"\1" * 64),
        segment(
            0xC0,
            struct.pack(">BHHB", precision, height, width, count)
            + b"".join(bytes([1 + i, h << 4 | v, 0]) for i, (h, v) in enumerate(sampling)),
        ),
        segment(0xC4, b"\0" + bytes([1, *[0] * 15]) + b"\0"),
        segment(0xC4, b"\x10" + bytes([1, 1, 1, 1, *[0] * 12]) + bytes([0x00, 0xF0, 0xE1, 0x01])),
        segment(0xDD, struct.pack(">H", restart)),
    ]
    for members in scans or [range(count)]:
        chosen = b"".join(bytes([1 + i, 0]) for i in members)
        parts.append(segment(0xDA, bytes([len(members)]) + chosen + b"\0\x3f\0"))
        if len(members) == 1:
            h, v = sampling[members[0]]
            columns, rows = -(-width * h // (8 * across)), -(-height * v // (8 * down))
            units, blocks = columns * rows, 1
        else:
            units = -(-width // (8 * across)) * -(-height // (8 * down))
            blocks = sum(sampling[i][0] * sampling[i][1] for i in members)
        parts.append(_entropy(units, block * blocks, restart))
    return b"".join([*parts, b"\xff\xd9"])


def _entropy(units, bits, restart):
    """Return the coded bytes of so many *units* of *bits* each."""
    if not restart:
        packed = int(bits * 8, 2).to_bytes(len(bits)) * -(-units // 8)
        return packed[: -(-units * len(bits) // 8)].replace(b"\xff", b"\xff\0")
    run = bits * restart
    run += "1" * (-len(run) % 8)
    packed = int(run, 2).to_bytes(len(run) // 8).replace(b"\xff", b"\xff\0")
    cycle = b"".join(packed + bytes([0xFF, 0xD0 + i]) for i in range(8))
    return (cycle * (units // restart // 8 + 1))[: (len(packed) + 2) * (units // restart) - 2]


def gif(screen, frame, codes, *, place=(0, 0), code_bits=8, extra=b""):
    """Return a GIF of one frame, (width, height), on a *screen*, with *codes* as its LZW stream."""
    palette = bytes(range(256)) * 3
    blocks = b"".join(
        bytes([len(codes[i : i + 255])]) + codes[i : i + 255] for i in range(0, len(codes), 255)
    )
    head = b"GIF89a" + struct.pack("<HHBBB", *screen, 0xF7, 0, 0) + palette
    return head + extra + b"," + struct.pack("<HHHHBB", *place, *frame, 0, code_bits) + blocks + b"\0;"


def riff(*chunks):
    """Return a WebP file of *chunks*, (kind, content)."""
    body = b"".join(
        struct.pack("<4sI", kind, len(content)) + content + bytes(len(content) % 2)
        for kind, content in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def webp_canvas(width, height, *, flags=0):
    """Return the chunk that claims a canvas of that size."""
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"VP8X", bytes([flags, 0, 0, 0]) + sides
