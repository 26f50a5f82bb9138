"""From what a caller has to jobs: where they are cut, what no job carries, and which pixels travel."""

from __future__ import annotations

import base64
import io
import json
import os
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedding.client import inputs
from embedding.client.inputs import chunks, image_item, size_bytes, text_item, too_large
from embedding.intake.image import ImageLimits, Preprocess, decode_image
from tests.intake import hostile
from tests.intake.hostile import GREY, PALETTE, RGB, RGBA, chunk, encode, exif, png
from tests.intake.test_image import rows


AS_IT_IS = Preprocess(size=64)
ROOT = Path(__file__).parents[2]


def seen(item):
    """Return the pixels that a worker makes of a wire item or a file."""
    data = item if isinstance(item, bytes) else base64.b64decode(item["image_base64"])
    return decode_image(data, preprocess=AS_IT_IS, limits=ImageLimits())


def cut(items, *, max_items=100, max_bytes=10**6):
    """Return the sizes of the jobs that *items* make."""
    numbered = list(enumerate(items))
    jobs = list(chunks(iter(numbered), max_items=lambda: max_items, max_bytes=max_bytes))
    assert [is_last for _, is_last in jobs] == [number == len(jobs) for number in range(1, len(jobs) + 1)]
    return [len(job) for job, _ in jobs]


class TestCutting:
    @pytest.mark.parametrize(
        ("count", "jobs"), [(0, []), (1, [1]), (63, [63]), (64, [64]), (65, [64, 1]), (129, [64, 64, 1])]
    )
    def test_by_count(self, count, jobs):
        """A job holds up to 64 items."""
        assert cut([{"text": "x"}] * count, max_items=64) == jobs

    @pytest.mark.parametrize(("spare", "jobs"), [(-1, [2, 1]), (0, [3]), (1, [3])])
    def test_by_bytes(self, spare, jobs):
        """A job holds what its bytes allow, to the byte."""
        items = [text_item("a" * 50)] * 3

        assert cut(items, max_bytes=3 * size_bytes(items[0]) + spare) == jobs

    def test_a_limit_that_falls(self):
        """A job that is begun ends at the limit that holds by then."""
        limits = iter([4, 4, 4, 2, 2, 2, 2, 2, 2])
        jobs = chunks(enumerate([{"text": "x"}] * 8), max_items=lambda: next(limits), max_bytes=10**6)

        assert [len(job) for job, _ in jobs] == [4, 2, 2]

    @pytest.mark.parametrize(
        "text", ["plain", 'quotes " and \\', "ümläüte", "\n\t\x00", "漢字", "😀" * 9, ""]
    )
    def test_size_is_never_too_small(self, text):
        """What an item takes as JSON is no more than what was reckoned."""
        for item in (text_item(text), {"image_url": f"https://x.example/{text}"}):
            assert len(json.dumps(item)) + 1 <= size_bytes(item)

    @pytest.mark.parametrize(("spare", "fits"), [(-1, False), (0, True), (1, True)])
    @pytest.mark.parametrize(
        ("item", "code"), [({"text": "abc"}, "INVALID_INPUT"), ({"image_base64": "QUJD"}, "IMAGE_TOO_LARGE")]
    )
    def test_what_no_job_carries(self, item, code, spare, fits):
        """An item larger than a request is that item's error, which says so."""
        error = too_large(7, item, max_bytes=size_bytes(item) + spare)

        assert (error is None) == fits
        assert fits or (error.index, error.code, error.retryable) == (7, code, False)


def gradient(mode, size=(48, 32)):
    """Return a picture of *mode* in which every pixel differs from its neighbours."""
    return Image.linear_gradient("L").resize(size).convert(mode)


PALETTE_FILE = png(
    4, 4, PALETTE, rows(0, 1, 2, 0),
    extra=chunk(b"PLTE", bytes([255, 0, 0, 0, 255, 0, 0, 0, 255])) + chunk(b"tRNS", bytes([0, 128])),
)  # fmt: skip
FILES = {
    "JPEG": encode(gradient("RGB"), "JPEG"),
    "grey JPEG": encode(gradient("L"), "JPEG"),
    "CMYK JPEG": encode(gradient("CMYK"), "JPEG"),
    "turned JPEG": encode(gradient("RGB"), "JPEG", exif=exif(6)),
    "JPEG with broken EXIF": encode(gradient("RGB"), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "turned WebP": encode(gradient("RGB"), "WEBP", exif=exif(3), lossless=True),
    "WebP with alpha": encode(gradient("RGBA"), "WEBP", lossless=True),
    "PNG of 1 bit": encode(gradient("1"), "PNG"),
    "PNG of 16 bits": encode(
        Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16), "PNG"
    ),
    "PNG of grey and alpha": encode(gradient("LA"), "PNG"),
    "PNG of RGBA": encode(gradient("RGBA"), "PNG"),
    "PNG with a clear palette": PALETTE_FILE,
    "PNG with a clear grey": hostile.flat_png(8, 8, GREY, extra=chunk(b"tRNS", struct.pack(">H", 0))),
    "PNG with a clear colour": hostile.flat_png(8, 8, RGB, extra=chunk(b"tRNS", struct.pack(">3H", 0, 0, 0))),
    "PNG of RGBA of 16 bits": hostile.flat_png(8, 8, RGBA, depth=16),
    "GIF": encode(gradient("P"), "GIF"),
    "GIF with a clear colour": encode(gradient("P"), "GIF", transparency=7),
}
HEAD, NAME, REST = encode(Image.effect_noise((400, 400), 90), "PNG").partition(b"IDAT")
WITHOUT_SECOND_CHUNK = HEAD + NAME + REST.replace(NAME, bytes(4))


class TestPixels:
    @pytest.mark.parametrize("name", FILES)
    def test_a_pillow_image_is_its_file(self, name):
        """The worker makes the same pixels of a picture opened by Pillow as of its file."""
        with warnings.catch_warnings(action="ignore"):  # Pillow's own, of broken EXIF
            whole = Image.open(io.BytesIO(FILES[name]))

        assert np.abs(seen(image_item(whole)).astype(int) - seen(FILES[name])).max() <= 1

    @pytest.mark.parametrize(
        ("mode", "equal"),
        [("PA", "RGBA"), ("La", "LA"), ("RGBa", "RGBA"), ("HSV", "RGB"), ("YCbCr", "RGB"), ("RGBX", "RGB")],
    )
    def test_modes_that_no_file_has(self, mode, equal):
        """A mode of Pillow's own is what it shows."""
        by_way_of = {"La": "LA", "PA": "P"}.get(mode, "RGBA" if mode == "RGBa" else "RGB")
        picture = gradient(by_way_of).convert(mode)

        assert np.array_equal(seen(image_item(picture)), seen(image_item(picture.convert(equal))))

    @pytest.mark.parametrize("mode", ["I;16B", "I;16L", "I;16"])
    def test_byte_orders_of_16_bits(self, mode):
        """16 bits are scaled to 8 in either byte order."""
        values = (np.arange(64 * 64, dtype=np.uint16) * 16).reshape(64, 64)
        stored = values.astype(">u2" if mode == "I;16B" else "<u2").tobytes()

        assert np.array_equal(seen(image_item(Image.frombytes(mode, (64, 64), stored))), seen(image_item(
            Image.fromarray((values >> 8).astype(np.uint8))
        )))  # fmt: skip

    @pytest.mark.parametrize("mode", ["I", "F"])
    def test_modes_without_a_white(self, mode):
        """Whole and broken numbers of 32 bits are refused rather than clipped."""
        with pytest.raises(ValueError, match=f"mode {mode} does not say which value is white"):
            image_item(gradient("L").convert(mode))

    @pytest.mark.parametrize("shape", [(9, 7), (9, 7, 1), (9, 7, 3), (9, 7, 4), (1, 1)])
    def test_arrays(self, shape):
        """Grey, RGB and RGBA arrive pixel by pixel, whatever lies between them in memory."""
        pixels = np.random.default_rng(1).integers(0, 256, (*shape, 2), dtype=np.uint8)[..., 0]
        sent = Image.open(io.BytesIO(base64.b64decode(image_item(pixels)["image_base64"])))

        assert np.array_equal(np.asarray(sent).reshape(shape), pixels)

    @pytest.mark.parametrize(
        "shape", [(9,), (9, 7, 2), (9, 7, 5), (3, 9, 7), (2, 9, 7, 3), (0, 7, 3), (9, 0)]
    )
    def test_arrays_of_other_shapes(self, shape):
        """What is no picture is told by its shape."""
        with pytest.raises(ValueError, match=r"must be \(H, W\) or \(H, W, 1, 3 or 4\), not \("):
            image_item(np.zeros(shape, np.uint8))

    @pytest.mark.parametrize("kind", ["float16", "float32", "float64", "uint16", "int64", "bool"])
    def test_arrays_of_other_numbers(self, kind):
        """Numbers whose white nobody knows are refused; for fractions the message says how to go on."""
        with pytest.raises(ValueError, match=f"uint8, 0 to 255, not {kind}") as refused:
            image_item(np.zeros((4, 4, 3), kind))

        assert ("round()" in str(refused.value)) == kind.startswith("float")

    def test_pixels_are_not_changed_for_their_owner(self):
        """A picture that was sent is as it was."""
        picture = gradient("RGB")
        picture.info["exif"] = exif(6)
        before = picture.tobytes(), dict(picture.info)
        image_item(picture)

        assert (picture.tobytes(), dict(picture.info)) == before

    @pytest.mark.parametrize(
        ("damaged", "words"),
        [
            (FILES["JPEG"][:-60], "image file is truncated"),
            (WITHOUT_SECOND_CHUNK, "broken PNG file"),
        ],
        ids=["OSError", "SyntaxError"],
    )
    def test_a_damaged_file_that_pillow_has_opened(self, damaged, words):
        """A picture whose file ends too early or is no more one is the item's error, not the call's."""
        opened = Image.open(io.BytesIO(damaged))

        with pytest.raises(OSError, match=words) as fault:
            image_item(opened)
        assert inputs.unreadable(3, fault.value).message.startswith(f"the image cannot be read: {words}")


class TestNames:
    @pytest.mark.parametrize("uri", ["data:image/png;base64,AAAA", "DATA:image/PNG;base64,AAAA"])
    def test_data_stays_data(self, uri):
        """It is no path, however it is written."""
        assert image_item(uri) == {"image_base64": uri}

    @pytest.mark.parametrize("url", ["https://x.example/a.png", "HTTP://x.example", "https://ü.example/é"])
    def test_urls_stay_urls(self, url):
        """The worker fetches them."""
        assert image_item(url) == {"image_url": url}

    def test_a_name_that_is_no_unicode(self):
        """A file system knows names of any bytes; what is told of one can be written down."""
        with pytest.raises(OSError, match="No such file") as fault:
            image_item(os.fsdecode(b"\xff.png"))

        assert inputs.unreadable(0, fault.value).message.startswith("\\udcff.png cannot be read")

    def test_a_name_that_is_far_too_long(self):
        """Base64 in the place of a path is not repeated as a whole."""
        with pytest.raises(OSError, match="too long") as fault:
            image_item("QUJD" * 2000)

        assert len(inputs.unreadable(0, fault.value).message) < 300
