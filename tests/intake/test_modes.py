"""Pictures of every depth and colour model: what a person would see is what the model gets."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from embedding.intake.headers.exif import PREFIX
from embedding.intake.image import Preprocess
from tests.intake import hostile
from tests.intake.hostile import PALETTE, RGB, RGBA, chunk, encode, png
from tests.intake.test_image import RED, TURNS, WHITE, decode, gradient, halves, rows


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_palettes_of_every_depth_are_their_colours(depth):
    """An index is the colour that the palette says, however few bits it has."""
    colours = chunk(b"PLTE", bytes([*RED, 0, 0, 255]))
    file = png(4, 4, PALETTE, rows(0, 0, 1, 1, depth=depth), depth=depth, extra=colours)

    assert np.array_equal(decode(file), halves(RED, (0, 0, 255)))


def test_colours_of_16_bits_keep_their_upper_byte():
    """RGB of 16 bits is RGB of 8."""
    samples = [0, 255, 256, 32768, 65535, 511, 0, 0, 0, 65535, 65535, 65535]
    found = decode(png(4, 4, RGB, rows(*samples, depth=16), depth=16))

    assert found[0].ravel().tolist() == [sample >> 8 for sample in samples]


def test_transparency_of_16_bits_shows_white():
    """RGBA of 16 bits is laid on white like RGBA of 8."""
    clear, red = [0, 0, 65535, 0], [65535, 0, 0, 65535]
    file = png(4, 4, RGBA, rows(*clear, *clear, *red, *red, depth=16), depth=16)

    assert np.array_equal(decode(file), halves(WHITE, RED))


@pytest.mark.parametrize(
    ("ink", "colour"),
    [
        ((0, 255, 255, 0), RED),
        ((0, 0, 0, 0), WHITE),
        ((0, 0, 0, 255), (0, 0, 0)),
        ((255, 0, 0, 0), (0, 255, 255)),
    ],
)
def test_ink_is_the_colour_that_it_prints(ink, colour):
    """CMYK as Adobe's programs store it, inverted, is not read the wrong way round."""
    file = encode(Image.new("CMYK", (16, 16), ink), "JPEG", quality=100)

    assert np.abs(decode(file).astype(int) - colour).max() <= 2


@pytest.mark.parametrize("orientation", TURNS)
def test_webp_is_turned_upright(orientation):
    """EXIF in a WebP counts as it does in a JPEG."""
    upright = gradient(64, 40)
    stored = np.ascontiguousarray(TURNS[orientation](upright))
    turned = encode(stored, "WEBP", lossless=True, exact=True, exif=PREFIX + hostile.exif(orientation))
    preprocess = Preprocess(size=32, resize_mode="longest")

    assert np.array_equal(decode(turned, preprocess), decode(encode(upright, "PNG"), preprocess))


def test_the_first_of_several_pictures_is_turned_by_its_own_exif():
    """A phone's file with a second picture (MPO) is its first picture, upright."""
    first, second = Image.fromarray(gradient(64, 40)), Image.new("RGB", (64, 40), "blue")
    block = PREFIX + hostile.exif(6)
    file = encode(first, "MPO", save_all=True, append_images=[second], exif=block)
    preprocess = Preprocess(size=32)

    assert np.array_equal(decode(file, preprocess), decode(encode(first, "JPEG", exif=block), preprocess))
    assert not np.array_equal(decode(file, preprocess), decode(encode(first, "JPEG"), preprocess))
