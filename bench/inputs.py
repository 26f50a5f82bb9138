"""What callers send: pictures that cost a decoder what photographs cost it, and the jobs made of them.

Each picture is noise of a photograph's spectrum (amplitude falling with frequency, channels alike) under a
few hard-edged shapes, so that a JPEG of 640×480 has the 50 to 100 KB of a camera's. Seeded: every run, and
every party of a comparison, gets the same bytes.
"""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image, ImageDraw


if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

VGA: Final = (640, 480)
PICTURES: Final = 32
QUALITY: Final = 88
TEXTS: Final = tuple(
    f"a {size} {colour} {thing}"
    for size in ("small", "large")
    for colour in ("red", "blue", "green", "yellow")
    for thing in ("circle", "square", "dog on a beach", "car in the rain")
)

_FALLOFF: Final = 1.25  # photographs have about 1 / frequency; a little steeper gives a camera's bytes
_CONTRAST: Final = 55.0
_SHAPES: Final = 6


def jpegs(count: int = PICTURES, size: tuple[int, int] = VGA) -> tuple[bytes, ...]:
    """Return *count* different JPEG files of *size* (width, height)."""
    return tuple(encoded(picture(size, seed), "JPEG") for seed in range(count))


def picture(size: tuple[int, int], seed: int) -> Image.Image:
    """Return the picture of *size* (width, height) that belongs to *seed*, RGB."""
    rng = np.random.default_rng(seed)
    width, height = size
    shared, own = _noise(rng, (1, height, width)), _noise(rng, (3, height, width))
    tint = rng.uniform(70, 185, (3, 1, 1))
    pixels = tint + _CONTRAST * (0.95 * shared + 0.25 * own)  # (3, H, W)
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0).copy())
    _draw_shapes(image, rng)
    return image


def encoded(image: Image.Image, form: str) -> bytes:
    """Return *image* as a file of *form*: JPEG, PNG, WEBP or GIF."""
    options: dict[str, Any] = {"JPEG": {"quality": QUALITY}, "WEBP": {"quality": QUALITY}}.get(form, {})
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def image_jobs(files: Iterable[bytes]) -> tuple[bytes, ...]:
    """Return a job for each file, serialised, with the picture in base64."""
    return tuple(job({"image_base64": base64.b64encode(file).decode()}) for file in files)


def url_job(urls: Sequence[str]) -> bytes:
    """Return one batch job of all *urls*, serialised."""
    return job({"items": [{"image_url": url} for url in urls]})


def job(job_input: dict[str, Any]) -> bytes:
    """Return the serialised job of *job_input*, without an id."""
    return json.dumps({"input": job_input}, separators=(",", ":")).encode()


def _noise(rng: np.random.Generator, shape: tuple[int, int, int]) -> npt.NDArray[np.float64]:
    """Return noise of *shape* (C, H, W), mean 0 and variance 1, whose amplitude falls with frequency."""
    _, height, width = shape
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width) * width)
    frequency[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.standard_normal(shape)) * frequency**-_FALLOFF
    spectrum[:, 0, 0] = 0.0
    noise: npt.NDArray[np.float64] = np.fft.irfft2(spectrum, s=(height, width))
    return noise / noise.std()


def _draw_shapes(image: Image.Image, rng: np.random.Generator) -> None:
    draw = ImageDraw.Draw(image)
    width, height = image.size
    for number in range(_SHAPES):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        across = rng.uniform(0.05, 0.3) * min(width, height)
        box = (x - across, y - across, x + across, y + across)
        colour = tuple(int(level) for level in rng.integers(0, 256, 3))
        (draw.ellipse if number % 2 else draw.rectangle)(box, fill=colour)
