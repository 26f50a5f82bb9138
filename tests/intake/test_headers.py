"""What reaches the decoder, and how much a file may say before its picture."""

from __future__ import annotations

import io
import struct
import time
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from embedding.errors import DecodeError
from embedding.intake.headers import exif, gif, jpeg, png, read_header
from tests.intake import hostile


SMALL = Image.new("RGB", (64, 48), (200, 30, 90))
MAX_FLOOD_S = 0.5


def metadata(kind, **options):
    """Return a file of *kind* with EXIF (orientation 6), an ICC profile and whatever *options* add."""
    return hostile.encode(
        SMALL, kind, exif=exif.PREFIX + hostile.exif(6), icc_profile=b"profile" * 99, **options
    )


class TestFacts:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
    def test_size_and_format_are_read(self, kind):
        """Each format tells its size."""
        header = read_header(hostile.encode(SMALL, kind))

        assert (header.format, header.width, header.height) == (kind, 64, 48)
        assert header.orientation == 1

    @pytest.mark.parametrize("mode", ["RGB", "RGBA"])
    @pytest.mark.parametrize("options", [{"lossless": True}, {"lossless": False}, {"exif": hostile.exif(3)}])
    def test_every_webp_tells_its_size(self, mode, options):
        """Lossy, lossless and extended files keep their size in three places."""
        header = read_header(hostile.encode(Image.new(mode, (300, 7)), "WEBP", **options))

        assert (header.width, header.height) == (300, 7)
        assert header.orientation == (3 if "exif" in options else 1)

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
    def test_orientation_is_read(self, kind):
        """EXIF's orientation is found in every format that has EXIF."""
        assert read_header(metadata(kind)).orientation == 6

    @pytest.mark.parametrize(
        ("colour_type", "depth", "extra", "expected"),
        [
            (hostile.GREY, 1, b"", 1),
            (hostile.GREY, 8, b"", 1),
            (hostile.GREY, 16, b"", 2),
            (hostile.GREY, 16, hostile.chunk(b"tRNS", bytes(2)), 4),
            (hostile.PALETTE, 8, hostile.chunk(b"tRNS", bytes(2)), 1),
            (hostile.RGB, 8, b"", 3),
            (hostile.RGB, 8, hostile.chunk(b"tRNS", bytes(6)), 6),
            (hostile.RGBA, 8, b"", 4),
            (hostile.RGBA, 16, b"", 8),
        ],
    )
    def test_png_tells_what_a_pixel_takes(self, colour_type, depth, extra, expected):
        """Bytes for a pixel follow from colour type, depth and transparency."""
        header = read_header(hostile.flat_png(8, 8, colour_type, depth=depth, extra=extra))

        assert header.bytes_per_pixel == expected

    @pytest.mark.parametrize(
        ("options", "scans", "components"), [({}, 1, 3), ({"progressive": True}, 10, 14)]
    )
    def test_jpeg_tells_its_scans(self, options, scans, components):
        """Scans and the components in them are counted; ten scans are what libjpeg calls progressive."""
        header = read_header(hostile.encode(SMALL, "JPEG", **options))

        assert (header.scans, header.scanned_components) == (scans, components)

    def test_bytes_that_look_like_scans_are_not(self):
        """Scan markers inside a segment, a thumbnail's for example, are not counted."""
        file = hostile.jpeg_with(hostile.segment(0xE2, b"\xff\xda" * 200))

        assert read_header(file).scans == 1

    def test_a_gif_frame_may_exceed_its_screen(self):
        """A first frame larger than the screen makes the picture larger, as Pillow draws it."""
        file = bytearray(hostile.encode(Image.new("P", (16, 16)), "GIF"))
        file[6:10] = struct.pack("<HH", 4, 4)

        assert read_header(bytes(file)).width == 16


class TestPayload:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG"])
    def test_metadata_does_not_reach_the_decoder(self, kind):
        """EXIF, profiles, comments and text are left out; pixels stay what they were."""
        options = {"comment": b"hello"} if kind == "JPEG" else {}
        file = metadata(kind, **options)
        header = read_header(file)
        with Image.open(io.BytesIO(header.payload)) as stripped, Image.open(io.BytesIO(file)) as whole:
            assert not {"exif", "icc_profile", "comment"} & set(stripped.info)
            assert stripped.tobytes() == whole.tobytes()

    def test_colour_transform_of_adobe_is_kept(self):
        """APP14 decides the colours of CMYK and RGB files, so it stays."""
        file = hostile.encode(SMALL, "JPEG", keep_rgb=True)
        marked = file[:2] + hostile.segment(0xEE, b"Adobe" + bytes(7)) + file[2:]

        assert b"Adobe" in read_header(marked).payload

    def test_second_pictures_are_cut_off(self):
        """What follows a JPEG's end, such as a phone's depth map, is dropped."""
        file = hostile.encode(SMALL, "JPEG")

        assert read_header(file + file + b"garbage").payload == read_header(file).payload

    def test_an_animation_is_its_still_picture(self):
        """An animated PNG's frames are dropped, its default picture stays."""
        frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
        file = hostile.encode(frames[0], "PNG", save_all=True, append_images=frames[1:])
        with Image.open(io.BytesIO(read_header(file).payload)) as image:
            assert image.n_frames == 1
            assert image.getpixel((0, 0)) == (255, 0, 0)

    def test_a_gif_keeps_the_transparency_of_its_first_frame(self):
        """Comments go, the graphic control extension stays."""
        file = hostile.encode(Image.new("P", (8, 8)), "GIF", transparency=0, comment=b"hello")
        payload = read_header(file).payload

        assert b"\x21\xf9" in payload
        assert b"hello" not in payload


class TestOrientation:
    @pytest.mark.parametrize("value", range(1, 9))
    @pytest.mark.parametrize("order", ["<", ">"])
    def test_is_read_in_either_byte_order(self, order, value):
        """Little and big endian blocks, with and without prefix, say the same."""
        block = hostile.exif(value, order=order)

        assert exif.orientation(block) == value
        assert exif.orientation(exif.PREFIX + block) == value

    @pytest.mark.parametrize(
        "block",
        [
            b"",
            b"II*\0",
            b"not a TIFF file",
            hostile.exif(0),
            hostile.exif(9),
            hostile.exif(6)[:16],
            hostile.exif(6, kind=2),
            b"MM\0*" + struct.pack(">I", 0xFFFF_FFFF),
            hostile.exif_of_many_tags(5),
        ],
    )
    def test_means_upright_where_broken(self, block):
        """Broken EXIF, or an orientation that does not exist, leaves the picture as it is."""
        assert exif.orientation(block) == 1

    @given(st.binary(max_size=200) | st.binary(max_size=200).map(b"MM\0*".__add__))
    def test_any_block_has_one(self, block):
        """No bytes raise."""
        assert exif.orientation(block) in range(1, 9)


class TestFloods:
    FLOODS = {  # noqa: RUF012  a table
        "JPEG segments": lambda: hostile.jpeg_with(hostile.segment(0xEF, b"") * (10 * hostile.MEBIBYTE // 4)),
        "JPEG fill bytes": lambda: hostile.jpeg_with(b"\xff" * 10 * hostile.MEBIBYTE),
        "JPEG stuffed zeros": lambda: hostile.encode(SMALL, "JPEG")[:-2] + b"\xff\0" * 5 * hostile.MEBIBYTE,
        "JPEG EXIF that warns": lambda: hostile.jpeg_with(
            hostile.segment(0xE1, exif.PREFIX + hostile.exif_of_many_tags(5000)) * 160
        ),
        "PNG text": lambda: hostile.flat_png(8, 8, hostile.GREY, extra=hostile.chunk(b"tEXt", b"") * 870_000),
        "PNG empty data": lambda: hostile.flat_png(
            8, 8, hostile.GREY, extra=hostile.chunk(b"IDAT", b"") * 870_000
        ),
        "PNG profiles": lambda: hostile.flat_png(
            8, 8, hostile.GREY, extra=hostile.chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 20))) * 9_000
        ),
        "GIF comments": lambda: hostile.gif_with(b"!\xfe\0" * 3_400_000),
        "GIF comment of short blocks": lambda: hostile.gif_with(b"!\xfe" + b"\1a" * 5_000_000 + b"\0"),
        "GIF padding": lambda: hostile.gif_with(bytes(10 * hostile.MEBIBYTE)),
    }

    @pytest.mark.parametrize("make", FLOODS.values(), ids=FLOODS)
    def test_cost_next_to_nothing(self, make):
        """Ten megabytes of parts that Pillow would parse for seconds are refused, or left out, at once."""
        file = make()
        started_s = time.perf_counter()
        try:
            payload = read_header(file).payload
        except DecodeError:
            payload = b""

        assert time.perf_counter() - started_s < MAX_FLOOD_S
        assert len(payload) < 10_000 or payload.startswith(jpeg.SIGNATURE)

    @pytest.mark.parametrize("extra", [-1, 0, 1])
    def test_jpeg_segments_end_at_the_limit(self, extra):
        """As many segments as allowed pass; one more does not."""
        others = jpeg.MAX_SEGMENTS - len(_markers(hostile.encode(SMALL, "JPEG")))
        file = hostile.jpeg_with(hostile.segment(0xEF, b"") * (others + extra))
        _passes_or_raises(file, passes=extra <= 0, match="1000 segments")

    @pytest.mark.parametrize("extra", [-1, 0, 1])
    def test_png_chunks_end_at_the_limit(self, extra):
        """As many chunks as allowed pass; one more does not."""
        file = hostile.flat_png(
            8, 8, hostile.GREY, extra=hostile.chunk(b"tEXt", b"") * (png.MAX_CHUNKS - 3 + extra)
        )
        _passes_or_raises(file, passes=extra <= 0, match="20000 chunks")

    @pytest.mark.parametrize("extra", [-1, 0, 1])
    def test_gif_blocks_end_at_the_limit(self, extra):
        """As many blocks before the first frame as allowed pass; one more does not."""
        control = 3  # a graphic control extension: itself, its block, its end
        padding = gif.MAX_BLOCKS - 1 - control + extra
        file = hostile.gif_with(bytes(padding) + b"!\xf9\4\0\0\0\0\0")
        _passes_or_raises(file, passes=extra <= 0, match="20000 blocks")


class TestRefusals:
    @pytest.mark.parametrize("marker", [0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF])
    def test_rare_jpeg_codings_are_refused(self, marker):
        """Arithmetic, lossless and hierarchical files are refused by their frame's marker."""
        file = hostile.encode(SMALL, "JPEG").replace(b"\xff\xc0", bytes([0xFF, marker]))
        with pytest.raises(DecodeError, match="rare coding"):
            read_header(file)

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\xff",
            b"BM" + bytes(60),
            b"II*\0" + bytes(60),
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            b"%PDF-1.7",
            b"RIFF\0\0\0\0WAVE",
            b"\0\0\0\x1cftypavif",
            b"<!doctype html>",
        ],
    )
    def test_other_formats_are_refused(self, data):
        """Whatever is none of the four formats is told so."""
        with pytest.raises(DecodeError, match="JPEG, PNG, WebP or GIF"):
            read_header(data)

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
    def test_every_beginning_has_an_answer(self, kind):
        """A file cut anywhere is read or refused, never anything else."""
        file = metadata(kind) if kind != "GIF" else hostile.encode(SMALL, "GIF")
        for length in range(min(len(file), 1500)):
            try:
                header = read_header(file[:length])
            except DecodeError:
                continue
            assert (header.width, header.height) == (64, 48)

    @pytest.mark.parametrize(("offset", "kind"), [(16, "PNG"), (6, "GIF")])
    def test_no_pixels_are_no_picture(self, offset, kind):
        """A width of nothing is refused."""
        file = bytearray(hostile.encode(SMALL.convert("P"), kind))
        file[offset : offset + 4] = bytes(4)
        if kind == "GIF":
            frame = file.index(b"\x2c")
            file[frame + 5 : frame + 9] = bytes(4)
        with pytest.raises(DecodeError, match="damaged"):
            read_header(bytes(file))


def _markers(file):
    """Return the markers of a small baseline JPEG, its start left out."""
    markers, position = [], 2
    while file[position + 1] != 0xDA:
        markers.append(file[position + 1])
        position += 2 + struct.unpack_from(">H", file, position + 2)[0]
    return [*markers, 0xDA, 0xD9]


def _passes_or_raises(file, *, passes, match):
    if passes:
        assert read_header(file).width
    else:
        with pytest.raises(DecodeError, match=match):
            read_header(file)
