"""Attacks by name: files made to cost the most that the limits allow, files just above them, and odd ones.

`DEAREST` all pass the limits on headers, each close to one; `REFUSED` are past one; `ODD` lie about
themselves, are rare, or belong to two formats. `mutated` damages sound files, the same way each time.
"""

from __future__ import annotations

import random
import struct
import zlib

import numpy as np
from PIL import Image

from embedding.intake.headers.exif import PREFIX
from tests.intake import hostile
from tests.intake.hostile import (
    FAR,
    GREY,
    GREY_ALPHA,
    MEBIBYTE,
    PALETTE,
    RGB,
    RGBA,
    chunk,
    encode,
    flat_jpeg,
    flat_png,
    gif,
    png,
    riff,
    segment,
    webp_canvas,
)


TRANSPARENT_GREY, TRANSPARENT_RGB = chunk(b"tRNS", b"\0\1"), chunk(b"tRNS", b"\0\1\0\1\0\1")
COLOURS = chunk(b"PLTE", bytes(range(256)) * 3) + chunk(b"tRNS", bytes(range(256)))
THREE, FOUR = ((1, 1),) * 3, ((1, 1),) * 4
APART, APART_FOUR = [(0,), (1,), (2,)], [(0,), (1,), (2,), (3,)]


def noise(width, height, channels=3, levels=256):
    """Return a picture of noise, its left upper part repeated."""
    part = np.random.default_rng(0).integers(0, levels, (512, 512, channels), dtype=np.uint8)
    across, down = -(-width // 512), -(-height // 512)
    return np.tile(part, (down, across, 1))[:height, :width].squeeze()


def damaged_at_the_end(file):
    """Return a JPEG that is found damaged when all of it has been decoded."""
    return file[:-2]


def clears(width, height):
    """Return a GIF whose LZW table is thrown away after each pixel: 18 bits each."""
    codes = (256 | 5 << 9) << 0
    packed = sum(codes << 18 * i for i in range(4)).to_bytes(9, "little")
    return gif((width, height), (width, height), packed * (width * height // 4))


def webp(width, height, **options):
    """Return a lossless or lossy WebP of noise in few levels."""
    return encode(
        noise(width, height, options.pop("channels", 3), options.pop("levels", 4)), "WEBP", **options
    )


def flooded(file, size=9 * MEBIBYTE):
    """Return the PNG *file* with a flood of deflate blocks before its pixels."""
    start = file.index(b"IDAT")
    length = struct.unpack_from(">I", file, start - 4)[0]
    packed = hostile.deflate_flood(size, file[start + 4 : start + 4 + length])
    return file[: start - 4] + chunk(b"IDAT", packed) + file[start + 8 + length :]


def forgiven(file):
    """Return a JPEG whose last pixels are missing: libjpeg-turbo warns at the end, and Pillow forgives."""
    return file[:-12] + file[-2:]


def near_limit(make, sizes, limit=10 * MEBIBYTE):
    """Return the largest file of *make*, by growing *sizes*, that is within *limit*."""
    return max((file for file in map(make, sizes) if len(file) <= limit), key=len)


DEAREST = {
    "jpeg/progressive, 25 MP": lambda: hostile.scan_bomb(5000, 5000, scans=10),
    "jpeg/progressive, 25 MP, damaged": lambda: damaged_at_the_end(hostile.scan_bomb(5000, 5000, scans=10)),
    "jpeg/100 scans": lambda: hostile.scan_bomb(1830, 1830, scans=100),
    "jpeg/100 scans, damaged": lambda: damaged_at_the_end(hostile.scan_bomb(1830, 1830, scans=100)),
    "jpeg/progressive noise": lambda: encode(noise(2100, 2100), "JPEG", progressive=True, quality=98),
    "jpeg/progressive noise, damaged": lambda: damaged_at_the_end(
        encode(noise(2100, 2100), "JPEG", progressive=True, quality=98)
    ),
    "jpeg/noise, 50 MP, damaged": lambda: damaged_at_the_end(
        encode(noise(7071, 7071), "JPEG", quality=2, subsampling=0)
    ),
    "jpeg/flat, 50 MP": lambda: flat_jpeg(7071, 7071),
    "jpeg/far coefficients, 50 MP, damaged": lambda: damaged_at_the_end(flat_jpeg(7071, 7071, block=FAR)),
    "jpeg/three scans, 45 MP": lambda: flat_jpeg(6700, 6700, scans=APART),
    "jpeg/six scans, 29 MP, forgiven": lambda: forgiven(
        flat_jpeg(6120, 6120, scans=[*APART, *[range(3)] * 3])
    ),
    "jpeg/CMYK, 37.5 MP": lambda: flat_jpeg(6123, 6123, sampling=FOUR),
    "jpeg/CMYK, eight scans": lambda: flat_jpeg(
        4740, 4740, sampling=FOUR, scans=[*APART_FOUR, *[range(4)] * 4]
    ),
    "jpeg/rare sampling": lambda: flat_jpeg(7071, 7071, sampling=((3, 1), (1, 1), (1, 1)), block=FAR),
    "jpeg/4 by 2 sampling, apart": lambda: flat_jpeg(
        6700, 6700, sampling=((4, 2), (1, 1), (1, 1)), scans=APART, block=FAR
    ),
    "jpeg/grey, 50 MP": lambda: flat_jpeg(7071, 7071, sampling=((1, 1),), block=FAR),
    "jpeg/restarts, 50 MP": lambda: flat_jpeg(7071, 7071, restart=1),
    "jpeg/thin": lambda: flat_jpeg(65_000, 650, block=FAR),
    "jpeg/2.9 to one": lambda: flat_jpeg(12_000, 4_140, block=FAR),
    "png/16-bit RGBA, interlaced": lambda: flat_png(4330, 4330, RGBA, depth=16, interlaced=True),
    "png/16-bit RGB": lambda: flat_png(5000, 5000, RGB, depth=16),
    "png/16-bit RGB with a key": lambda: flat_png(3535, 3535, RGB, depth=16, extra=TRANSPARENT_RGB),
    "png/16-bit grey": lambda: flat_png(7071, 7071, GREY, depth=16),
    "png/16-bit grey with a key": lambda: flat_png(6123, 6123, GREY, depth=16, extra=TRANSPARENT_GREY),
    "png/16-bit grey and alpha": lambda: flat_png(6123, 6123, GREY_ALPHA, depth=16),
    "png/grey and alpha": lambda: flat_png(7071, 7071, GREY_ALPHA),
    "png/grey with a key": lambda: flat_png(7071, 7071, GREY, extra=TRANSPARENT_GREY),
    "png/RGB, interlaced": lambda: flat_png(7071, 7071, RGB, interlaced=True),
    "png/RGB with a key": lambda: flat_png(4999, 4999, RGB, extra=TRANSPARENT_RGB),
    "png/RGBA": lambda: flat_png(6123, 6123, RGBA),
    "png/RGBA, interlaced": lambda: flat_png(6123, 6123, RGBA, interlaced=True),
    "png/palette with alpha": lambda: flat_png(7071, 7071, PALETTE, extra=COLOURS),
    "png/1 bit, interlaced": lambda: flat_png(7071, 7071, GREY, depth=1, interlaced=True),
    "png/2-bit palette, interlaced": lambda: flat_png(
        7071, 7071, PALETTE, depth=2, extra=COLOURS, interlaced=True
    ),
    "png/1 bit with a key": lambda: flat_png(7071, 7071, GREY, depth=1, extra=TRANSPARENT_GREY),
    "png/thin": lambda: flat_png(707, 70_700, GREY, depth=1),
    "png/thin RGBA": lambda: flat_png(61_200, 612, RGBA),
    "png/deflate of nothing, 10 MB": lambda: flooded(flat_png(64, 64, GREY), 10 * MEBIBYTE - 1000),
    "png/RGB with a key, after 9 MB of nothing": lambda: flooded(
        flat_png(4999, 4999, RGB, extra=TRANSPARENT_RGB)
    ),
    "png/RGBA, after 9 MB of nothing": lambda: flooded(flat_png(6123, 6123, RGBA)),
    "png/RGBA, after 4 MB of nothing": lambda: flooded(flat_png(6123, 6123, RGBA), 4 * MEBIBYTE),
    "png/RGBA of many colours, 10 MB": lambda: encode(noise(3000, 3000, 4, 2), "PNG", compress_level=1),
    "png/grey of 50 MP, 10 MB": lambda: encode(noise(7071, 7071, 1, 2), "PNG", compress_level=1),
    "jpeg/noise, 50 MP, forgiven": lambda: forgiven(
        near_limit(
            lambda quality: encode(noise(7071, 7071), "JPEG", quality=quality, subsampling=0), (2, 4, 5, 6)
        )
    ),
    "jpeg/noise, 50 MP, grey, forgiven": lambda: forgiven(
        near_limit(
            lambda quality: encode(noise(7071, 7071, 1), "JPEG", quality=quality), (6, 8, 10, 12, 15, 20)
        )
    ),
    "jpeg/far, 50 MP, forgiven": lambda: forgiven(flat_jpeg(7071, 7071, block=FAR)),
    "jpeg/rare sampling, forgiven": lambda: forgiven(
        flat_jpeg(7071, 7071, sampling=((3, 1), (1, 1), (1, 1)), block=FAR)
    ),
    "jpeg/progressive, 25 MP, forgiven": lambda: forgiven(hostile.scan_bomb(5000, 5000, scans=10)),
    "jpeg/progressive noise, 25 MP": lambda: near_limit(
        lambda quality: encode(noise(5000, 5000), "JPEG", quality=quality, progressive=True, subsampling=0),
        (2, 4, 6, 8, 10),
    ),
    "jpeg/three scans, 45 MP, forgiven": lambda: forgiven(flat_jpeg(6700, 6700, scans=APART, block=FAR)),
    "png/noise, 10 MB": lambda: encode(noise(1850, 1850), "PNG", compress_level=0),
    "gif/50 MP": lambda: encode(Image.new("P", (7071, 7071)), "GIF"),
    "gif/50 MP, interlaced, transparent": lambda: encode(
        Image.new("P", (7071, 7071)), "GIF", interlace=True, transparency=0
    ),
    "gif/a code for each pixel": lambda: clears(2140, 2140),
    "gif/screen of 50 MP, frame of 1": lambda: gif((7071, 7071), (1, 1), b"\x00\x0b\x04\x04"),
    "webp/lossless noise, 16 MP": lambda: webp(4000, 4000, lossless=True, method=0, levels=2),
    "webp/lossless, flat, 16 MP": lambda: encode(Image.new("RGBA", (4000, 4000)), "WEBP", lossless=True),
    "webp/lossy, 16 MP": lambda: webp(4000, 4000, method=0, quality=60, levels=64),
    "webp/lossy with alpha, 16 MP": lambda: webp(
        4000, 4000, method=0, quality=20, levels=32, channels=4, alpha_quality=30
    ),
}

REFUSED = {
    "jpeg/100 MP": lambda: flat_jpeg(10_000, 10_000),
    "jpeg/65,500 by 65,500": lambda: flat_jpeg(64, 64).replace(
        struct.pack(">HH", 64, 64), struct.pack(">HH", 65_500, 65_500), 1
    ),
    "jpeg/11 scans of 32 MP": lambda: hostile.scan_bomb(5656, 5656, scans=11),
    "jpeg/13 scans of 49 MP": lambda: hostile.scan_bomb(7000, 7000, scans=13),
    "jpeg/101 scans": lambda: hostile.scan_bomb(64, 64, scans=101),
    "jpeg/7 sequential scans of 50 MP": lambda: flat_jpeg(7071, 7071, scans=[*APART, *[range(3)] * 4]),
    "jpeg/65,000 restarts out of place": lambda: hostile.jpeg_with(b"\xff\xd0" * 65_000),
    "jpeg/fill bytes, 10 MB": lambda: hostile.jpeg_with(b"\xff" * (10 * MEBIBYTE - 2000)),
    "jpeg/stuffed zeros, 10 MB": lambda: flat_jpeg(64, 64)[:-2] + b"\xff\0" * (5 * MEBIBYTE - 2000),
    "jpeg/empty segments, 10 MB": lambda: hostile.jpeg_with(segment(0xEF, b"") * (10 * MEBIBYTE // 4 - 1000)),
    "jpeg/EXIF that warns": lambda: hostile.jpeg_with(
        segment(0xE1, PREFIX + hostile.exif_of_many_tags(5000)) * 160
    ),
    "jpeg/thin": lambda: flat_jpeg(50_000, 8),
    "jpeg/one byte too long": lambda: flat_jpeg(64, 64) + bytes(10 * MEBIBYTE),
    "jpeg/as long as a job may be": lambda: flat_jpeg(64, 64) + bytes(20 * MEBIBYTE),
    "png/line of 50,000": lambda: encode(Image.new("L", (50_000, 1)), "PNG"),
    "png/16-bit RGBA of 49 MP": lambda: flat_png(7000, 7000, RGBA, depth=16),
    "png/two thousand million pixels": lambda: png(2**31 - 1, 2**31 - 1, RGB, zlib.compress(bytes(64))),
    "png/text, 10 MB": lambda: flat_png(8, 8, GREY, extra=chunk(b"tEXt", b"") * 870_000),
    "png/text that unpacks to 1 GB": lambda: flat_png(
        8, 8, GREY, extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(8 * MEBIBYTE), 9)) * 128
    ),
    "png/profiles that unpack to 9 GB": lambda: flat_png(
        8, 8, GREY, extra=chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(MEBIBYTE), 9)) * 9_000
    ),
    "png/empty data, 10 MB": lambda: flat_png(8, 8, GREY, extra=chunk(b"IDAT", b"") * 870_000),
    "gif/screen of 4,000 MP": lambda: gif((65_535, 65_535), (1, 1), b"\x00\x0b\x04\x04"),
    "gif/frame beyond the screen": lambda: gif((8, 8), (60_000, 60_000), b"\x00\x0b\x04\x04"),
    "gif/comments, 10 MB": lambda: hostile.gif_with(b"!\xfe\0" * 3_400_000),
    "gif/padding, 10 MB": lambda: hostile.gif_with(bytes(10 * MEBIBYTE - 2000)),
    "webp/canvas of 16,383 by 6,000": lambda: encode(
        Image.new("RGB", (16_383, 6000)), "WEBP", lossless=True, method=0
    ),
    "webp/canvas of 16 million by 16 million": lambda: riff(webp_canvas(1 << 24, 1 << 24)),
}

_SMALL = Image.new("RGB", (64, 48), (200, 30, 90))
_FRAMES = [Image.new("RGB", (64, 48), (i, 0, 0)) for i in range(200)]
_JPEG, _PNG, _GIF, _WEBP = (encode(_SMALL, kind) for kind in ("JPEG", "PNG", "GIF", "WEBP"))


def _with_frame(marker):
    return _JPEG.replace(b"\xff\xc0", bytes([0xFF, marker]))


def _vp8():
    """Return the lossy chunk of a small WebP."""
    return b"VP8 ", _WEBP[20 : 20 + struct.unpack_from("<I", _WEBP, 16)[0]]


ODD = {
    "nothing": lambda: b"",
    "one byte": lambda: b"\xff",
    "zeros": lambda: bytes(1000),
    "text": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "jpeg/CMYK": lambda: encode(_SMALL.convert("CMYK"), "JPEG"),
    "jpeg/YCCK": lambda: encode(_SMALL.convert("CMYK"), "JPEG").replace(
        b"Adobe\0\x64\0\0\0\0\0", b"Adobe\0\x64\0\0\0\0\2"
    ),
    "jpeg/two components": lambda: flat_jpeg(64, 64, sampling=THREE[:2]),
    "jpeg/five components": lambda: flat_jpeg(64, 64, sampling=((1, 1),) * 5, scans=[(0,)]),
    "jpeg/ten components": lambda: flat_jpeg(64, 64, sampling=((1, 1),) * 10, scans=[(0,)]),
    "jpeg/12 bits": lambda: flat_jpeg(64, 64, precision=12),
    "jpeg/lossless": lambda: _with_frame(0xC3),
    "jpeg/arithmetic": lambda: _with_frame(0xC9),
    "jpeg/arithmetic, progressive": lambda: _with_frame(0xCA),
    "jpeg/four by four sampling": lambda: flat_jpeg(640, 640, sampling=((4, 4), (3, 3), (1, 2)), scans=APART),
    "jpeg/height to be told later": lambda: flat_jpeg(64, 0),
    "jpeg/no picture": lambda: b"\xff\xd8\xff\xd9",
    "jpeg/EXIF that points to itself": lambda: hostile.jpeg_with(
        segment(0xE1, PREFIX + b"MM\0*" + struct.pack(">IHHHIII", 8, 1, 0x8769, 4, 1, 8, 8))
    ),
    "jpeg/EXIF of 65,535 entries": lambda: hostile.jpeg_with(
        segment(0xE1, PREFIX + b"MM\0*" + struct.pack(">IH", 8, 65_535) + bytes(65_000))
    ),
    "jpeg/two hundred pictures": lambda: encode(_FRAMES[0], "MPO", save_all=True, append_images=_FRAMES[1:]),
    "jpeg/and a web page": lambda: _JPEG + b"<script>alert(1)</script>",
    "jpeg/and an archive": lambda: _JPEG + b"PK\5\6" + bytes(18),
    "jpeg/in a GIF": lambda: b"GIF89a" + _JPEG,
    "png/in a JPEG": lambda: hostile.jpeg_with(segment(0xFE, _PNG)),
    "png/index out of the palette": lambda: png(
        4, 4, PALETTE, zlib.compress(b"\0\xff\xff\xff\xff" * 4), extra=chunk(b"PLTE", b"abc")
    ),
    "png/no palette": lambda: png(4, 4, PALETTE, zlib.compress(bytes(20))),
    "png/two headers": lambda: flat_png(
        8, 8, GREY, extra=chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 6, 0, 0, 0))
    ),
    "png/animated": lambda: encode(_FRAMES[0], "PNG", save_all=True, append_images=_FRAMES[1:]),
    "png/length of 4 GB": lambda: _PNG[:33] + b"\xff\xff\xff\xff" + _PNG[37:],
    "gif/animated": lambda: encode(_FRAMES[0], "GIF", save_all=True, append_images=_FRAMES[1:]),
    "gif/frame outside": lambda: gif((8, 8), (8, 8), b"\x00\x0b\x04\x04", place=(4, 4)),
    "gif/codes of one bit": lambda: gif((64, 64), (64, 64), bytes(3000), code_bits=1),
    "gif/codes of 13 bits": lambda: gif((64, 64), (64, 64), bytes(3000), code_bits=13),
    "gif/clear codes alone": lambda: gif((64, 64), (64, 64), b"\0\2\4\10\20\40\100\200\1" * 100_000),
    "webp/animated": lambda: encode(_FRAMES[0], "WEBP", save_all=True, append_images=_FRAMES[1:]),
    "webp/canvas smaller than its picture": lambda: riff(webp_canvas(1, 1), _vp8()),
    "webp/canvas larger than its picture": lambda: riff(webp_canvas(4000, 4000), _vp8()),
    "webp/animation without frames": lambda: riff(webp_canvas(4000, 4000, flags=2), (b"ANIM", bytes(6))),
    "webp/empty chunks": lambda: riff(webp_canvas(64, 48, flags=8), *[(b"JUNK", b"")] * 100_000, _vp8()),
    "webp/a picture of another size inside": lambda: riff(
        (b"VP8L", b"\x2f" + ((3999 << 14 | 3999).to_bytes(4, "little")) + bytes(100))
    ),
}


def mutated(count, seed=0):
    """Return *count* sound files with some bits turned, parts cut out, doubled or cut off."""
    chance = random.Random(seed)
    rgba = encode(noise(96, 64, 4), "PNG")
    sound = [_PNG, _GIF, _WEBP, rgba, encode(noise(96, 64, 4), "WEBP", lossless=True)]
    sound += [encode(noise(96, 64), "JPEG", progressive=on) for on in (False, True)]
    sound += [encode(noise(96, 64).astype(np.uint8), "GIF"), flat_jpeg(96, 64, scans=APART, block=FAR)]
    return {
        f"mutation {number}": _mutation(bytearray(chance.choice(sound)), chance) for number in range(count)
    }


def _mutation(file, chance):
    for _ in range(chance.randint(1, 12)):
        start = chance.randrange(8, len(file))
        end = start + chance.randint(1, 40)
        match chance.randrange(8):
            case 0:
                del file[start:end]
            case 1:
                file[start:start] = file[start:end]
            case 2:
                file[start:end] = chance.randbytes(len(file[start:end]))
            case _:
                file[start] ^= 1 << chance.randrange(8)
        if len(file) < 20:
            break
    return bytes(file[: chance.randrange(8, len(file))] if chance.random() < 0.2 else file)


GROUPS = {
    "attacks: dearest": lambda: made(DEAREST),
    "attacks: refused": lambda: made(REFUSED),
    "attacks: odd": lambda: made(ODD),
    "attacks: mutated": lambda: mutated(300),
}


def made(makers):
    """Return the files of *makers* by name."""
    return {name: make() for name, make in makers.items()}


def crowds(size=64):
    """Return what is worst when it comes *size* times at once: large in memory, slow, or never finished."""
    cut = encode(Image.new("P", (7071, 7071)), "GIF")[:-20]
    names = ("jpeg/three scans, 45 MP", "png/16-bit RGBA, interlaced", "webp/lossless, flat, 16 MP")
    return {
        **{name: [DEAREST[name]()] * size for name in names},
        "gif/50 MP, cut off": [cut] * size,
        "one of each, of up to 1 MB": [file for file in made(DEAREST).values() if len(file) <= 1_000_000],
    }
