"""Every limit on strangers' downloads and images: what it is by default, and that it holds to the unit."""

from __future__ import annotations

from dataclasses import asdict, fields, replace

import pytest

from embedding.errors import ImageTooLarge
from embedding.intake.base64_image import decode_base64
from embedding.intake.headers import Header
from embedding.intake.image import _check, decode_image
from embedding.intake.limits import PILLOW_MAX_PIXELS, FetchLimits, ImageLimits
from embedding.intake.preprocess import Preprocess
from tests.intake import hostile


FETCH_DEFAULTS = {
    "max_bytes": 10_485_760,
    "timeout_s": 10.0,
    "connect_timeout_s": 3.0,
    "read_timeout_s": 5.0,
    "dns_timeout_s": 2.0,
    "max_overhead_bytes": 262_144,
    "max_redirects": 3,
    "max_attempts": 3,
    "backoff_base_s": 0.2,
    "backoff_cap_s": 2.0,
    "max_retry_after_s": 5.0,
    "retry_tokens": 500,
    "retry_cost": 10,
    "max_idle_connections": 64,
    "max_idle_per_host": 16,
    "max_idle_s": 15.0,
    "max_url_length": 2048,
    "allow_http": False,
    "allowed_domains": (),
    "ports": frozenset({80, 443}),
}
IMAGE_DEFAULTS = {
    "max_bytes": 10_485_760,
    "max_pixels": 50_000_000,
    "max_webp_pixels": 16_000_000,
    "max_decoded_bytes": 150_000_000,
    "max_aspect": 100,
    "max_jpeg_scans": 100,
    "max_jpeg_scan_pixels": 350_000_000,
    "max_memory_bytes": 450_000_000,
    "max_reading_s": 0.6,
}

PLAIN = Header("PNG", 1000, 999, b"", bytes_per_pixel=3)
FILE = hostile.flat_png(4, 4, 0, depth=1)
# For each limit a picture, what it costs under that limit, and what its sender is told.
COSTS = {
    "max_bytes": (FILE, len(FILE), f"image has {len(FILE)} bytes; the limit is {len(FILE) - 1}"),
    "max_pixels": (PLAIN, 999_000, "image is 1.0 megapixels; the limit is 0.998999"),
    "max_webp_pixels": (
        replace(PLAIN, format="WEBP"),
        999_000,
        "image in WebP is 1.0 megapixels; the limit is 0.998999",
    ),
    "max_decoded_bytes": (
        replace(PLAIN, bytes_per_pixel=4),
        3_996_000,
        "image is 1.0 megapixels of 4 bytes each; the limit is 3.996 MB",
    ),
    "max_aspect": (
        replace(PLAIN, width=3, height=90),
        30,
        "image is 30 times as long as wide; the limit is 29",
    ),
    "max_jpeg_scans": (replace(PLAIN, scans=7), 7, "image has 7 scans; the limit is 6"),
    "max_jpeg_scan_pixels": (
        replace(PLAIN, scans=2, scanned_components=3, is_buffered=True),
        2_997_000,
        (
            "image is 1.0 megapixels in 2 scans of 3 components in all; "
            "the limit is 2.997 megapixels times components"
        ),
    ),
    "max_memory_bytes": (PLAIN, 3_996_000, "image takes 4.0 MB to decode; the limit is 3.996"),
}


def test_defaults():
    """Limits change only on purpose: each has a test of its own value, and there is no other."""
    assert asdict(FetchLimits()) == FETCH_DEFAULTS
    assert asdict(ImageLimits()) == IMAGE_DEFAULTS


def test_every_limit_of_an_image_has_its_case():
    """A limit that is added needs a picture that just keeps to it; a time has no such picture."""
    assert set(COSTS) | {"max_reading_s"} == {field.name for field in fields(ImageLimits)}


@pytest.mark.parametrize("name", COSTS)
class TestImageLimits:
    def test_a_picture_passes_at_its_cost_and_above(self, name):
        """What costs exactly the limit passes, and so does what costs one less."""
        picture, cost, _ = COSTS[name]
        price(picture, ImageLimits(**{name: cost}))
        price(picture, ImageLimits(**{name: cost + 1}))

    def test_a_picture_is_refused_at_one_below_its_cost(self, name):
        """What costs one more than the limit is refused, with both numbers."""
        picture, cost, told = COSTS[name]
        with pytest.raises(ImageTooLarge) as refused:
            price(picture, ImageLimits(**{name: cost - 1}))

        assert refused.value.message == told


def price(picture: bytes | Header, limits: ImageLimits) -> None:
    """Judge a file, or the header of one."""
    if isinstance(picture, Header):
        _check(picture, limits)
    else:
        decode_image(picture, preprocess=Preprocess(size=4), limits=limits)


@pytest.mark.parametrize(("pixels", "told"), [(1_000_000, "1.0"), (1_000_001, "1.1"), (1_100_000, "1.1")])
def test_megapixels_are_rounded_up(pixels, told):
    """One pixel too many shows, so that no picture is told to have exactly what is allowed."""
    with pytest.raises(ImageTooLarge, match=f"^image is {told} megapixels; the limit is 0.9$"):
        _check(replace(PLAIN, width=pixels, height=1), ImageLimits(max_pixels=900_000))


@pytest.mark.parametrize("size", [(90, 3), (3, 90)])
def test_aspect_is_the_longer_side_to_the_shorter(size):
    """Lying and standing pictures have one aspect; a fraction above the limit is above it."""
    width, height = size
    _check(replace(PLAIN, width=width, height=height), ImageLimits(max_aspect=30))
    longer = replace(PLAIN, width=width + (width > 3), height=height + (height > 3))
    with pytest.raises(ImageTooLarge, match=r"image is 30\.4 times as long as wide; the limit is 30$"):
        _check(longer, ImageLimits(max_aspect=30))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF"])
def test_the_limit_of_webp_is_for_webp(kind):
    """Other formats may have more pixels."""
    _check(replace(PLAIN, format=kind), ImageLimits(max_webp_pixels=1))


def test_one_scan_is_free():
    """A picture that is not progressive may have all pixels."""
    _check(PLAIN, ImageLimits(max_jpeg_scan_pixels=1))


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_pixels_stay_below_pillows_own_limit(over):
    """Under a limit above Pillow's, its warning would go to the log instead of to the caller."""
    if over > 0:
        with pytest.raises(ValueError, match="max_pixels is 89478486; it must not exceed 89478485"):
            ImageLimits(max_pixels=PILLOW_MAX_PIXELS + over)
    else:
        assert ImageLimits(max_pixels=PILLOW_MAX_PIXELS + over).max_pixels == 89_478_485 + over


@pytest.mark.parametrize(("size", "text"), [(1, "QQ=="), (2, "QUI="), (3, "QUJD"), (4, "QUJDRA==")])
def test_bytes_of_base64_are_counted_without_padding(size, text):
    """Whatever the padding, the limit is on what the text stands for."""
    assert len(decode_base64(text, max_bytes=size)) == size
    with pytest.raises(ImageTooLarge, match=f"image_base64 holds {size} bytes; the limit is {size - 1}"):
        decode_base64(text, max_bytes=size - 1)
