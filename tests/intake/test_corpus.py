"""Real and hostile files by the hundred: each decodes or is refused by an error of ours, within a second.

The files lie beside the repository, or where EMBED_CORPUS says; without them a few generated ones stand in.
"""

from __future__ import annotations

import os
import re
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedding.errors import DecodeError, ImageTooLarge
from embedding.intake.headers.exif import PREFIX
from embedding.intake.image import ImageLimits, Preprocess, decode_image
from tests.intake import hostile


CORPUS = Path(os.environ.get("EMBED_CORPUS") or Path(__file__).parents[3] / "shared" / "corpus")
MAX_DECODE_S = 1.0
# Mean distance of two encodings of one picture; a wrong orientation is fifteen times as far.
MAX_MEAN_GAP = 3.0
PICTURES = ["Landscape", "Portrait"]
SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".ppm", ".tif", ".tiff", ".ico", ".tga", ".hdr"}


def generated():
    """Yield names and contents of stand-ins, named as the files that they stand for."""
    gradient = np.linspace(0, 255, 64 * 48 * 3, dtype=np.uint8).reshape(48, 64, 3)
    for kind in ("JPEG", "PNG", "GIF", "WEBP"):
        file = hostile.encode(gradient, kind)
        yield f"good/{kind}", file
        yield f"cut/{kind}", file[: len(file) // 2]
        yield f"garbage/{kind}", file[:40] + bytes(range(256)) + file[40:]
    rows = zlib.compress(bytes(9) * 8)
    good = hostile.png(8, 8, hostile.GREY, rows)
    yield "pngsuite/xs1n0g01.png", b"\x88" + good[1:]
    yield "pngsuite/xhdn0g08.png", good[:29] + b"\0\0\0\0" + good[33:]
    yield "pngsuite/xc9n2c08.png", hostile.png(8, 8, 9, rows)
    yield "pngsuite/xd9n2c08.png", hostile.png(8, 8, hostile.RGB, rows, depth=99)
    yield "pngsuite/xdtn0g01.png", good.replace(hostile.chunk(b"IDAT", rows), b"")
    yield "bombs/scans.jpg", hostile.scan_bomb(4000, 4000, scans=30)
    yield "bombs/thin.png", hostile.encode(Image.new("L", (1, 50_000)), "PNG")
    yield "bombs/comments.gif", hostile.gif_with(b"!\xfe\0" * 100_000)
    upright = Image.fromarray(gradient).resize((180, 120), Image.Resampling.BICUBIC)
    for picture in PICTURES:
        for orientation in range(9):
            exif = PREFIX + hostile.exif(orientation)
            stored = upright.transpose(STORED[orientation]) if orientation in STORED else upright
            yield f"exif-orientation/{picture}_{orientation}.jpg", hostile.encode(stored, "JPEG", exif=exif)


STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def corpus():
    """Return contents by name: folder and file."""
    found = sorted(path for path in CORPUS.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        return dict(generated())
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in found}


FILES = corpus()
BROKEN_PNG = [name for name in FILES if re.match(r"pngsuite/(png_)?x", name) and "xcsn0g01" not in name]


def decode(name):
    """Decode the file *name* as ViT-B/32 sees it."""
    return decode_image(FILES[name], preprocess=Preprocess(), limits=ImageLimits())


@pytest.mark.parametrize("name", FILES)
def test_every_file_has_an_answer_in_time(name):
    """Pixels or an error of ours, within a second."""
    started_s = time.thread_time()
    try:
        pixels = decode(name)
    except (DecodeError, ImageTooLarge):
        pixels = None

    assert time.thread_time() - started_s < MAX_DECODE_S
    assert pixels is None or pixels.shape == (224, 224, 3)


@pytest.mark.parametrize("name", BROKEN_PNG)
def test_broken_png_is_refused(name):
    """What the PNG test suite calls broken is refused, but for a wrong checksum of the pixels."""
    with pytest.raises(DecodeError):
        decode(name)


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("orientation", range(9))
def test_orientations_look_alike(picture, orientation):
    """The same picture, stored in eight orientations or none, gives the same pixels but for its encoding."""
    upright = decode(f"exif-orientation/{picture}_1.jpg").astype(int)
    turned = decode(f"exif-orientation/{picture}_{orientation}.jpg")

    assert np.abs(turned - upright).mean() < MAX_MEAN_GAP


def test_there_is_a_corpus():
    """The tests above have seen good files and bad ones."""
    assert len(FILES) > 30
    assert BROKEN_PNG
