"""An untrusted image file in, the model's square of pixels out.

Threat: a small file that costs much. Everything is judged by the header first (`headers`): format, bytes,
pixels, aspect, scans, memory. What passes is decoded in this thread, with the interpreter lock released, in
at most about a second; a thread cannot be stopped, so nothing that takes longer may start. What no header
tells, such as ten megabytes of deflate codes for nothing, ends where Pillow reads on in a file that has had
its time. A sound JPEG goes by libjpeg-turbo and torch, all else by Pillow. The decoders get one format,
by name, and a file without metadata. Pillow tells its errors in a dozen classes, with addresses of memory in
their texts; only our own classes and messages leave.
"""

from __future__ import annotations

import io
import math
import struct
import time
import zlib
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from embedding.errors import DecodeError, ImageTooLarge, WorkerError
from embedding.intake.flatten import flatten
from embedding.intake.headers import DAMAGED, Header, read_header
from embedding.intake.jpeg import decode_rgb, is_plain
from embedding.intake.limits import ImageLimits
from embedding.intake.memory import peak_bytes
from embedding.intake.preprocess import Preprocess
from embedding.intake.resize import fit
from embedding.intake.tensor_resize import fit_pixels, suits


if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from embedding.intake.memory import Budget

__all__ = ["ImageLimits", "Preprocess", "decode_image"]

# Not Image.open: it warns of large images before ours can be told, and takes a JPEG's word for being an MPO.
_DECODERS: Final[Mapping[str, type[ImageFile.ImageFile]]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "GIF": GifImageFile,
    "WEBP": WebPImageFile,
}
# Of a JPEG that is not decoded row by row: a larger one goes to Pillow at once, for a damaged one would be
# decoded twice, at 0.4 s each time.
TWICE_PIXELS: Final = 16_000_000
STRIP_ROWS: Final = 256
# What Pillow's own fuzzers let pass, and what 9,847 files of public corpora made it raise.
FOREIGN_ERRORS: Final = (
    OSError,
    SyntaxError,
    ValueError,
    RuntimeError,
    EOFError,
    LookupError,
    TypeError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def decode_image(
    data: bytes, *, preprocess: Preprocess, limits: ImageLimits, memory: Budget | None = None
) -> npt.NDArray[np.uint8]:
    """Return the first picture of *data* as the model sees it: (S, S, 3) uint8, RGB, rows from the top.

    Orientation is applied and transparency composed on white; the rest is open_clip's evaluation
    transform before normalisation. Waits for its part of *memory*. Raises ImageTooLarge, or DecodeError if
    *data* is not such an image.
    """
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(f"image has {len(data)} bytes; the limit is {limits.max_bytes}")
    header = read_header(data)
    _check(header, limits)
    with memory.hold(peak_bytes(header)) if memory else nullcontext():
        outcome = _decode(header, preprocess, limits)
    if isinstance(outcome, WorkerError):
        raise outcome
    return outcome


def _decode(
    header: Header, preprocess: Preprocess, limits: ImageLimits
) -> npt.NDArray[np.uint8] | WorkerError:
    """Return the square, or the error to raise: raised here, its traceback would keep the large picture."""
    file = _TimedFile(header.payload, limits.max_reading_s)
    is_common = is_plain(header) and suits(header.width, header.height, preprocess)
    is_dear = header.is_buffered and header.width * header.height > TWICE_PIXELS
    try:
        pixels = decode_rgb(header) if is_common and not is_dear else None
        if pixels is None:
            image = _by_pillow(file, header)
            if not (is_common and is_dear):
                return np.array(fit(image, preprocess, orientation=header.orientation))
            pixels = _array_of(image)
            del image
    except _TimeIsOver:
        return ImageTooLarge(
            f"image takes more than {limits.max_reading_s:g} s to decode, which is the limit"
        )
    except FOREIGN_ERRORS:
        return DecodeError(DAMAGED)
    return fit_pixels(pixels, preprocess, orientation=header.orientation)


class _TimeIsOver(Exception):
    """A file may be read no further."""


class _TimedFile(io.BytesIO):
    """A file in memory that may be read until its thread has worked for *max_reading_s* seconds more."""

    def __init__(self, data: bytes, max_reading_s: float) -> None:
        super().__init__(data)
        self._end_s = time.thread_time() + max_reading_s

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to *size* bytes; raises _TimeIsOver."""
        if time.thread_time() > self._end_s:
            raise _TimeIsOver
        return super().read(size)


def _by_pillow(file: io.BytesIO, header: Header) -> Image.Image:
    image = _DECODERS[header.format](file)
    if image.size != (header.width, header.height):
        raise ValueError(DAMAGED)
    image.load()
    return flatten(image, header)


def _array_of(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return *image*, L or RGB, as (H, W, 3) uint8: strip by strip, for Pillow would hold it three times."""
    width, height = image.size
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    for top in range(0, height, STRIP_ROWS):
        bottom = min(top + STRIP_ROWS, height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, width, bottom)).convert("RGB"))
    return pixels


def _check(header: Header, limits: ImageLimits) -> None:
    """Raise ImageTooLarge if *header* announces more work than *limits* allow."""
    pixels = header.width * header.height
    _check_pixels(pixels, limits.max_pixels, "image")
    if header.format == "WEBP":
        _check_pixels(pixels, limits.max_webp_pixels, "image in WebP")
    decoded_bytes = pixels * header.bytes_per_pixel
    if decoded_bytes > limits.max_decoded_bytes:
        raise ImageTooLarge(
            f"image is {_mega(pixels)} megapixels of {header.bytes_per_pixel} bytes each; "
            f"the limit is {limits.max_decoded_bytes / 1e6:g} MB"
        )
    aspect = max(header.width, header.height) / min(header.width, header.height)
    if aspect > limits.max_aspect:
        raise ImageTooLarge(
            f"image is {_ceil(aspect):g} times as long as wide; the limit is {limits.max_aspect}"
        )
    if header.scans > limits.max_jpeg_scans:
        raise ImageTooLarge(f"image has {header.scans} scans; the limit is {limits.max_jpeg_scans}")
    if header.is_buffered and header.scanned_components * pixels > limits.max_jpeg_scan_pixels:
        raise ImageTooLarge(
            f"image is {_mega(pixels)} megapixels in {header.scans} scans of "
            f"{header.scanned_components} components in all; "
            f"the limit is {limits.max_jpeg_scan_pixels / 1e6:g} megapixels times components"
        )
    needed_bytes = peak_bytes(header)
    if needed_bytes > limits.max_memory_bytes:
        limit = f"the limit is {limits.max_memory_bytes / 1e6:g}"
        raise ImageTooLarge(f"image takes {_mega(needed_bytes)} MB to decode; {limit}")


def _check_pixels(pixels: int, limit: int, subject: str) -> None:
    if pixels > limit:
        raise ImageTooLarge(f"{subject} is {_mega(pixels)} megapixels; the limit is {limit / 1e6:g}")


def _mega(pixels: int) -> float:
    """Return megapixels to one decimal, rounded up, so that one pixel too many shows."""
    return _ceil(pixels / 1e6)


def _ceil(value: float) -> float:
    return math.ceil(value * 10) / 10
