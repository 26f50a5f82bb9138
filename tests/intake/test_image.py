"""From a file to the model's pixels: what is seen, what is refused, and what it may cost."""

from __future__ import annotations

import io
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from embedding.errors import DecodeError, ImageTooLarge, WorkerError
from embedding.intake.headers.exif import PREFIX
from embedding.intake.image import ImageLimits, Preprocess, decode_image
from tests.intake import hostile
from tests.intake.hostile import GREY, GREY_ALPHA, PALETTE, RGB, RGBA, chunk, encode, flat_jpeg, png


KINDS = ["JPEG", "PNG", "GIF", "WEBP"]
AS_IT_IS = Preprocess(size=4, resize_mode="squash")  # a square of four pixels a side stays untouched
WHITE, RED, GREY_40 = (255, 255, 255), (255, 0, 0), (40, 40, 40)
LIMITS = ImageLimits()
TURNS = {  # from upright to stored, by numpy
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: np.rot90,
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 3),
}


def decode(data, preprocess=AS_IT_IS, **limits):
    """Decode under the default limits but for *limits*."""
    return decode_image(data, preprocess=preprocess, limits=ImageLimits(**limits))


def halves(left, right):
    """Return four by four pixels, half of them *left*."""
    return np.array([[left] * 2 + [right] * 2] * 4, dtype=np.uint8)


def rows(*values, depth=8):
    """Return the compressed rows of a PNG, four alike, of samples of *depth* bits."""
    bits = "".join(f"{value:0{depth}b}" for value in values)
    bits += "0" * (-len(bits) % 8)
    row = b"\0" + int(bits, 2).to_bytes(len(bits) // 8)
    return hostile.zlib.compress(row * 4)


def gradient(width, height):
    """Return a picture in which no two directions look alike."""
    across = np.linspace(0, 255, width)[None, :, None] * np.array([1, 0, 0.5])
    down = np.linspace(0, 255, height)[:, None, None] * np.array([0, 1, 0.25])
    return (across + down).clip(0, 255).astype(np.uint8)


class TestPixels:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("size", [(1, 1), (1, 7), (64, 48), (300, 500)])
    def test_are_a_square_of_bytes(self, kind, size):
        """Any format and size gives (S, S, 3) uint8 that may be written to."""
        pixels = decode(encode(Image.new("RGB", size, RED), kind, quality=95), Preprocess(size=32))

        assert pixels.shape == (32, 32, 3)
        assert pixels.dtype == np.uint8
        assert pixels.flags.writeable
        assert np.abs(pixels.astype(int) - RED).max() <= 2

    def test_rows_come_from_the_top_and_red_first(self):
        """Index is row, column, channel; channels are red, green, blue."""
        image = np.zeros((4, 4, 3), dtype=np.uint8)
        image[0, 3] = (1, 2, 3)

        assert tuple(decode(encode(image, "PNG"))[0, 3]) == (1, 2, 3)

    @pytest.mark.parametrize("orientation", TURNS)
    @pytest.mark.parametrize("order", ["<", ">"])
    def test_are_upright(self, orientation, order):
        """A picture stored in any orientation decodes to the upright picture."""
        upright = gradient(64, 40)
        stored = np.ascontiguousarray(TURNS[orientation](upright))
        preprocess = Preprocess(size=32, resize_mode="longest")
        turned = encode(stored, "PNG", exif=hostile.exif(orientation, order=order))

        assert np.array_equal(decode(turned, preprocess), decode(encode(upright, "PNG"), preprocess))

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
    @pytest.mark.parametrize("block", [b"broken", b"MM\0*", hostile.exif(0), hostile.exif_of_many_tags(50)])
    def test_broken_exif_changes_nothing(self, kind, block):
        """A picture with broken EXIF is the picture without."""
        image = gradient(64, 40)
        preprocess = Preprocess(size=32)

        assert np.array_equal(
            decode(encode(image, kind, exif=PREFIX + block), preprocess),
            decode(encode(image, kind), preprocess),
        )

    @pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
    def test_of_an_animation_are_its_first_frame(self, kind):
        """Only the first frame counts."""
        frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "green", "blue")]
        file = encode(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)

        assert (decode(file) == RED).all()

    def test_of_several_pictures_are_the_first(self):
        """A phone's file with a second picture (MPO) is its first picture."""
        first, second = Image.new("RGB", (16, 16), "red"), Image.new("RGB", (16, 16), "blue")
        file = encode(first, "MPO", save_all=True, append_images=[second])

        assert np.array_equal(decode(file), decode(encode(first, "JPEG")))

    def test_ignore_colour_profiles(self):
        """A profile changes nothing, broken or not."""
        image = gradient(8, 8)

        assert np.array_equal(
            decode(encode(image, "PNG", icc_profile=b"x" * 200)), decode(encode(image, "PNG"))
        )

    def test_of_cmyk_are_rgb(self):
        """CMYK is converted as Pillow converts it."""
        file = encode(Image.fromarray(gradient(4, 4)).convert("CMYK"), "JPEG", quality=100)
        with Image.open(io.BytesIO(file)) as image:
            expected = np.array(image.convert("RGB"))

        assert np.array_equal(decode(file), expected)

    def test_do_not_depend_on_threads(self):
        """Many threads at once decode the same pixels as one."""
        files = [encode(gradient(200 + n, 150), kind) for n in range(6) for kind in KINDS]
        alone = [decode(file, Preprocess()) for file in files]
        with ThreadPoolExecutor(8) as threads:
            together = list(threads.map(lambda file: decode(file, Preprocess()), files))

        assert all(map(np.array_equal, alone, together))


class TestTransparency:
    PALETTE_RED = chunk(b"PLTE", bytes([0, 0, 255, *RED]))
    CASES = {  # noqa: RUF012  a table; the left half is transparent
        "RGBA": (encode(halves((0, 0, 255, 0), (*RED, 255)), "PNG"), RED),
        "grey and alpha": (png(4, 4, GREY_ALPHA, rows(0, 0, 0, 0, 40, 255, 40, 255)), GREY_40),
        "grey and alpha, 16 bits": (
            png(4, 4, GREY_ALPHA, rows(0, 0, 0, 0, 10280, 65535, 10280, 65535, depth=16), depth=16),
            GREY_40,
        ),
        "palette": (png(4, 4, PALETTE, rows(0, 0, 1, 1), extra=PALETTE_RED + chunk(b"tRNS", b"\0")), RED),
        "palette, opaque after all": (
            png(4, 4, PALETTE, rows(0, 0, 1, 1), extra=PALETTE_RED + chunk(b"tRNS", b"\0\xff")),
            RED,
        ),
        "grey key": (png(4, 4, GREY, rows(7, 7, 40, 40), extra=chunk(b"tRNS", b"\0\7")), GREY_40),
        "grey key, 4 bits": (
            png(4, 4, GREY, rows(1, 1, 8, 8, depth=4), depth=4, extra=chunk(b"tRNS", b"\0\1")),
            (136,) * 3,
        ),
        "grey key, 2 bits": (
            png(4, 4, GREY, rows(2, 2, 1, 1, depth=2), depth=2, extra=chunk(b"tRNS", b"\0\2")),
            (85,) * 3,
        ),
        "grey key, 1 bit": (
            png(4, 4, GREY, rows(0, 0, 0, 0, depth=1), depth=1, extra=chunk(b"tRNS", b"\0\0")),
            WHITE,
        ),
        "grey key, 16 bits": (
            png(4, 4, GREY, rows(7, 7, 10240, 10240, depth=16), depth=16, extra=chunk(b"tRNS", b"\0\7")),
            GREY_40,
        ),
        "grey key out of range": (
            png(4, 4, GREY, rows(255, 255, 40, 40), extra=chunk(b"tRNS", b"\xff\xff")),
            GREY_40,
        ),
        "RGB key": (
            png(4, 4, RGB, rows(0, 0, 255, 0, 0, 255, *RED, *RED), extra=chunk(b"tRNS", b"\0\0\0\0\0\xff")),
            RED,
        ),
        "RGB key, 16 bits": (
            png(
                4,
                4,
                RGB,
                rows(1, 2, 65535, 1, 2, 65535, 65535, 0, 0, 65535, 0, 0, depth=16),
                depth=16,
                extra=chunk(b"tRNS", struct.pack(">HHH", 1, 2, 65535)),
            ),
            RED,
        ),
        "WebP": (encode(halves((0, 0, 255, 0), (*RED, 255)), "WEBP", lossless=True, exact=True), RED),
        "GIF": (encode(Image.fromarray(halves((0, 0, 255, 0), (*RED, 255))), "GIF"), RED),
    }

    @pytest.mark.parametrize(("file", "colour"), CASES.values(), ids=CASES)
    def test_shows_white(self, file, colour):
        """Whatever is transparent, in any way that a file can say so, is white; the rest keeps its colour."""
        assert np.array_equal(decode(file), halves(WHITE, colour))

    def test_in_part_is_mixed_with_white(self):
        """Half of red over white is light red."""
        file = encode(np.full((4, 4, 4), (*RED, 128), dtype=np.uint8), "PNG")

        assert (decode(file) == (255, 127, 127)).all()


class TestGrey:
    def test_of_16_bits_is_scaled(self):
        """16-bit grey keeps its tones: its upper byte, where Pillow alone would clip all but the darkest."""
        file = png(4, 4, GREY, rows(0, 255, 32768, 65535, depth=16), depth=16)

        assert decode(file)[0, :, 0].tolist() == [0, 0, 128, 255]

    @pytest.mark.parametrize(("depth", "step"), [(1, 255), (2, 85), (4, 17)])
    def test_of_few_bits_spans_black_to_white(self, depth, step):
        """One, two and four bits are spread over the whole range."""
        levels = [0, 1, (1 << depth) - 1, 0]
        file = png(4, 4, GREY, rows(*levels, depth=depth), depth=depth)

        assert decode(file)[0, :, 2].tolist() == [level * step for level in levels]


class TestLimits:
    def test_bytes(self):
        """As many bytes as allowed pass; one more does not."""
        file = encode(gradient(16, 16), "PNG")
        decode(file, max_bytes=len(file))
        with pytest.raises(ImageTooLarge, match=f"has {len(file)} bytes; the limit is {len(file) - 1}"):
            decode(file, max_bytes=len(file) - 1)

    @pytest.mark.parametrize("kind", KINDS)
    def test_pixels(self, kind):
        """As many pixels as allowed pass; one more does not, and nothing is decoded to find out."""
        file = encode(Image.new("L", (1000, 1000)), kind)
        decode(file, max_pixels=1_000_001)
        decode(file, max_pixels=1_000_000)
        with pytest.raises(ImageTooLarge, match=r"megapixels; the limit is 0.999999"):
            decode(file, max_pixels=999_999)

    def test_pixels_by_default(self):
        """50 megapixels pass; the message says how many there were."""
        decode(hostile.flat_png(10_000, 5_000, GREY, depth=1))
        with pytest.raises(ImageTooLarge, match=r"image is 50.1 megapixels; the limit is 50$"):
            decode(hostile.flat_png(10_000, 5_001, GREY, depth=1))

    def test_pixels_of_webp(self):
        """WebP is slower to decode and has a limit of its own."""
        file = encode(Image.new("RGB", (100, 100)), "WEBP")
        decode(file, max_webp_pixels=10_000)
        with pytest.raises(ImageTooLarge, match=r"image in WebP is 0.1 megapixels; the limit is 0.009999"):
            decode(file, max_webp_pixels=9_999)

    def test_decoded_bytes(self):
        """Sixteen bits and four channels count."""
        file = hostile.flat_png(100, 100, RGBA, depth=16)
        decode(file, max_decoded_bytes=80_000)
        with pytest.raises(ImageTooLarge, match=r"0.1 megapixels of 8 bytes each; the limit is 0.079999 MB"):
            decode(file, max_decoded_bytes=79_999)

    @pytest.mark.parametrize("size", [(99, 1), (100, 1), (101, 1), (1, 99), (1, 100), (1, 101)])
    def test_aspect(self, size):
        """A hundred to one passes, one more does not, lying or standing."""
        file = encode(Image.new("RGB", size), "PNG")
        if max(size) <= 100:
            assert decode(file, Preprocess()).shape == (224, 224, 3)
        else:
            with pytest.raises(ImageTooLarge, match="101 times as long as wide; the limit is 100"):
                decode(file)

    @pytest.mark.parametrize("scans", [99, 100, 101])
    def test_scans(self, scans):
        """A hundred scans pass; one more does not."""
        file = hostile.scan_bomb(32, 32, scans=scans)
        if scans <= 100:
            decode(file)
        else:
            with pytest.raises(ImageTooLarge, match="image has 101 scans; the limit is 100"):
                decode(file)

    def test_scans_of_large_pictures(self):
        """Pixels times scanned components end at a limit of their own; a single scan is free of it."""
        file = hostile.scan_bomb(100, 100, scans=20)  # 14 components in ten scans, then one in each
        decode(file, max_jpeg_scan_pixels=240_000)
        decode(encode(gradient(100, 100), "JPEG"), max_jpeg_scan_pixels=1)
        with pytest.raises(
            ImageTooLarge, match=r"in 20 scans of 24 components in all; the limit is 0.239999"
        ):
            decode(file, max_jpeg_scan_pixels=239_999)

    def test_memory(self):
        """What decoding takes at its peak has a limit, known from the header."""
        file = flat_jpeg(100, 100, scans=[(0,), (1,), (2,)])
        decode(file, max_memory_bytes=100_000)
        with pytest.raises(ImageTooLarge, match=r"image takes 0.1 MB to decode; the limit is 0.099999"):
            decode(file, max_memory_bytes=99_999)

    @pytest.mark.parametrize("kind", ["PNG", "GIF"])
    def test_reading_time(self, kind):
        """A decoder that asks for more of a file when its time is over gets none."""
        file = encode(gradient(64, 48), kind)
        decode(file, max_reading_s=10)
        with pytest.raises(ImageTooLarge, match="image takes more than -1 s to decode"):
            decode(file, max_reading_s=-1)

    def test_pillows_own_limit_is_not_reached(self):
        """A limit under which Pillow would warn is refused at the start."""
        with pytest.raises(ValueError, match="89478485"):
            ImageLimits(max_pixels=89_478_486)


class TestAttacks:
    REFUSED = {  # noqa: RUF012  a table
        "scan bomb": lambda: hostile.scan_bomb(7000, 7000, scans=13),
        "line of 50,000 pixels": lambda: encode(Image.new("L", (50_000, 1)), "PNG"),
        "16-bit RGBA of 49 megapixels": lambda: hostile.flat_png(7000, 7000, RGBA, depth=16),
        "canvas of WebP": lambda: encode(Image.new("RGB", (16383, 6000)), "WEBP", lossless=True, method=0),
        "screen of GIF": lambda: b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"," + bytes(10),
    }
    ACCEPTED = {  # noqa: RUF012  the dearest that pass, of each kind
        "scans": lambda: hostile.scan_bomb(1830, 1830, scans=100),
        "16-bit RGBA": lambda: hostile.flat_png(4330, 4330, RGBA, depth=16, interlaced=True),
        "16-bit grey": lambda: hostile.flat_png(7071, 7071, GREY, depth=16),
        "profiles": lambda: hostile.flat_png(
            8, 8, GREY, extra=chunk(b"iCCP", b"a\0\0" + hostile.zlib.compress(bytes(1 << 20))) * 9000
        ),
        "empty chunks": lambda: hostile.flat_png(8, 8, GREY, extra=chunk(b"IDAT", b"") * 19_990),
        "thin": lambda: hostile.flat_png(707, 70_700, GREY, depth=1),
    }

    @pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
    def test_are_refused_by_their_header(self, make):
        """What would take seconds or gigabytes is refused in a moment."""
        file = make()
        started_s = time.thread_time()
        with pytest.raises(ImageTooLarge):
            decode(file)

        assert time.thread_time() - started_s < 0.1

    @pytest.mark.parametrize("make", ACCEPTED.values(), ids=ACCEPTED)
    def test_that_pass_are_over_soon(self, make):
        """The dearest files that pass hold a thread for less than a second of work."""
        file = make()
        started_s = time.thread_time()
        decode(file, Preprocess())

        assert time.thread_time() - started_s < 1


class TestDamage:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
    def test_cut_files_are_refused(self, kind, share):
        """A file that ends too soon is no image."""
        file = encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8), kind)
        with pytest.raises(DecodeError):
            decode(file[: int(len(file) * share)])

    def test_a_jpeg_without_its_end_is_refused(self):
        """Two bytes missing are enough."""
        with pytest.raises(DecodeError, match="damaged or cut short"):
            decode(encode(gradient(64, 64), "JPEG")[:-2])

    def test_garbage_at_the_end_is_ignored(self):
        """What follows the picture does not matter."""
        for kind in KINDS:
            file = encode(gradient(16, 16), kind)

            assert np.array_equal(decode(file + b"garbage"), decode(file))

    def test_two_frames_of_different_size_are_refused(self):
        """A file whose header says two things is not decoded at all."""
        file = encode(gradient(16, 16), "JPEG")
        frame = file.index(b"\xff\xc0")
        larger = bytearray(file[frame : frame + 19])
        larger[5:9] = struct.pack(">HH", 4000, 4000)
        with pytest.raises(DecodeError):
            decode(file[:frame] + bytes(larger) + file[frame:])

    @given(st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8\xff", b"GIF89a", hostile.PNG_SIGNATURE]))
    def test_any_bytes_have_an_answer(self, data, signature):
        """Arbitrary bytes raise our own errors, whose messages tell nothing of the inside."""
        _answers(signature + data)

    @given(st.sampled_from(KINDS), st.data())
    def test_any_mutation_has_an_answer(self, kind, data):
        """A small file with some bytes changed decodes, or raises our own errors."""
        file = bytearray(FILES[kind])
        places = st.lists(
            st.tuples(st.integers(0, len(file) - 1), st.integers(0, 255)), min_size=1, max_size=8
        )
        for place, value in data.draw(places):
            file[place] = value
        _answers(bytes(file))


FILES = {kind: encode(gradient(24, 16), kind) for kind in KINDS}


def _answers(data):
    """Decode *data*; assert that it gives pixels or an error of ours."""
    try:
        pixels = decode(data, Preprocess(size=8), max_pixels=1_000_000)
    except WorkerError as error:
        assert isinstance(error, DecodeError | ImageTooLarge)  # noqa: PT017  either is fine
        assert not {"<", "0x", "/", "\\"} & set(error.message)  # noqa: PT017
    else:
        assert pixels.shape == (8, 8, 3)
