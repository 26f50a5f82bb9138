"""JPEGs: libjpeg-turbo's pixels are Pillow's, and what it will not vouch for is left to Pillow."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from embedding.errors import DecodeError
from embedding.intake.headers import read_header
from embedding.intake.headers.exif import PREFIX
from embedding.intake.image import FOREIGN_ERRORS, ImageLimits, Preprocess, decode_image
from embedding.intake.jpeg import decode_rgb
from embedding.intake.resize import _TO_UPRIGHT
from tests.intake import hostile
from tests.intake.hostile import encode
from tests.intake.test_resize import picture


TEM = b"\xff\x01"  # a marker that libjpeg skips, and at which Pillow stops
KINDS = {
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "progressive": {"progressive": True},
    "progressive 4:4:4": {"progressive": True, "subsampling": 0},
    "restarts": {"restart_marker_blocks": 2},
    "RGB": {"keep_rgb": True},
    "of little quality": {"quality": 5},
    "of much quality": {"quality": 100},
}


def pillow(file):
    """Return Pillow's pixels of *file*, RGB."""
    with Image.open(io.BytesIO(file)) as image:
        return np.array(image.convert("RGB"))


def adobe(transform):
    """Return Adobe's segment: 0 for RGB, 1 for YCbCr."""
    return b"\xff\xee" + struct.pack(">H5sHHHB", 14, b"Adobe", 100, 0, 0, transform)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (17, 1), (33, 45), (64, 48), (301, 200)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_pixels_are_pillows(options, mode, size):
    """Every common way to write a JPEG, grey or in colour, gives Pillow's very pixels."""
    file = encode(picture(*size, mode), "JPEG", **options)

    assert np.array_equal(decode_rgb(read_header(file)), pillow(file))


@pytest.mark.parametrize("transform", [0, 1])
@pytest.mark.parametrize("jfif", [True, False])
def test_adobes_marker_decides_the_colours(transform, jfif):
    """Adobe's segment outlives the header's reading: RGB is read as RGB, and JFIF overrules it."""
    file = encode(picture(24, 16), "JPEG")
    end_of_jfif = 4 + struct.unpack_from(">H", file, 4)[0]
    start = file[: end_of_jfif if jfif else 2]
    file = start + adobe(transform) + file[end_of_jfif:]
    header = read_header(file)

    assert adobe(transform) in header.payload
    assert np.array_equal(decode_rgb(header), pillow(file))


def test_cmyk_is_left_to_pillow():
    """Four components are not read here."""
    assert decode_rgb(read_header(encode(picture(16, 16, "CMYK"), "JPEG"))) is None


@pytest.mark.parametrize("cut", [2, 3, 100])
def test_a_file_cut_short_is_left_to_pillow(cut):
    """Even where only the end marker is missing."""
    assert decode_rgb(read_header(encode(picture(64, 64), "JPEG")[:-cut])) is None


def test_another_size_than_the_headers_is_not_decoded():
    """The header's size is the most, and the least, that is written."""
    header = read_header(encode(picture(64, 48), "JPEG"))
    for width, height in ((63, 48), (64, 47), (65, 48), (64, 49), (48, 64)):
        claimed = type(header)("JPEG", width, height, header.payload, 3)

        assert decode_rgb(claimed) is None


def test_damage_that_pillow_forgives_is_forgiven():
    """A picture of which libjpeg only warns decodes as before: by Pillow."""
    file = encode(picture(64, 64), "JPEG", restart_marker_blocks=2)
    place = file.index(b"\xff\xd3")
    file = file[:place] + b"\xff\xd5" + file[place + 2 :]
    preprocess = Preprocess(size=64, resize_mode="squash")

    assert decode_rgb(read_header(file)) is None
    assert np.array_equal(decode_image(file, preprocess=preprocess, limits=ImageLimits()), pillow(file))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("orientation", range(9))
def test_the_square_is_open_clips(reference, orientation, mode):
    """From file to square: the upright picture through open_clip's transform, within two levels."""
    file = encode(picture(150, 100, mode), "JPEG", exif=PREFIX + hostile.exif(orientation))
    with Image.open(io.BytesIO(file)) as image:
        expected = reference(Preprocess(size=64))(_upright(image, orientation))
    gaps = np.abs(decode_image(file, preprocess=Preprocess(size=64), limits=ImageLimits()) - expected)

    assert gaps.max() <= 2
    assert np.count_nonzero(gaps > 1) <= gaps.size * 1e-4


def _upright(image, orientation):
    image.load()
    return image.transpose(_TO_UPRIGHT[orientation]) if orientation in _TO_UPRIGHT else image


FILES = [
    encode(picture(24, 16, mode), "JPEG", **options) for options in KINDS.values() for mode in ("RGB", "L")
]


@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=4),
    st.floats(0.2, 1),
)
@settings(max_examples=300, deadline=None)
def test_no_mutation_gives_other_pixels(file, changes, share):
    """A file with bytes changed or its end cut off gives Pillow's pixels or is left to Pillow."""
    mutated = bytearray(file)
    for place, value in changes:
        mutated[2 + int(place * (len(file) - 2))] = value
    try:
        header = read_header(bytes(mutated[: max(4, round(len(file) * share))]))
    except DecodeError:
        return
    pixels = decode_rgb(header) if header.width * header.height < 100_000 else None
    if pixels is None or TEM in header.payload:
        return
    try:
        expected = pillow(header.payload)
    except FOREIGN_ERRORS as exc:
        pytest.fail(f"Pillow refuses it: {exc}")

    assert np.array_equal(pixels, expected)


@pytest.mark.parametrize(("side", "tries"), [(3999, 1), (4000, 1), (4001, 0)])
def test_large_progressive_pictures_are_decoded_once(monkeypatch, side, tries):
    """Of up to 16 megapixels a damaged one is decoded by libjpeg, then by Pillow; of more by Pillow alone."""
    data = hostile.scan_bomb(side, 4000, scans=1)
    asked = []
    monkeypatch.setattr("embedding.intake.image.decode_rgb", asked.append)
    decode_image(data, preprocess=Preprocess(), limits=ImageLimits())

    assert len(asked) == tries


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_large_progressive_pictures_are_the_same_by_either_way(monkeypatch, mode):
    """A sound one gives the square that libjpeg's pixels give."""
    data = encode(picture(4200, 4000).convert(mode), "JPEG", progressive=True, quality=60)
    by_pillow = decode_image(data, preprocess=Preprocess(), limits=ImageLimits())
    monkeypatch.setattr("embedding.intake.image.TWICE_PIXELS", 50_000_000)

    assert np.array_equal(decode_image(data, preprocess=Preprocess(), limits=ImageLimits()), by_pillow)
