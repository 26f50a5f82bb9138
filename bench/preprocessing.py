"""Ways from an image file to the model's square of pixels, by format and size, on one core.

    python -m bench.preprocessing [--seconds S]     a table of all
    python -m bench.preprocessing --vga S           JSON of ours and open_clip's for VGA JPEGs

Each way is timed by turns with open_clip's evaluation transform, and its pixels are compared with that
transform's before normalisation: the largest difference in levels of 255, and the share of values that
differ by more than one. A way that skips work (a JPEG decoded at a fraction of its size, say) shows there.

A GIF is compared with the transform of its RGB picture: open_clip converts last, so that it resizes palette
indices by nearest neighbour, which is fast and not what a model was trained on.
"""

from __future__ import annotations

import argparse
import io
import json
import os
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from bench.figures import alternate_ms
from bench.inputs import VGA, encoded, jpegs, picture
from bench.report import aligned
from embedding.intake.image import ImageLimits, Preprocess, decode_image
from embedding.intake.resize import fit


if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]
    Way = Callable[[bytes], Any]

PREPROCESS: Final = Preprocess()
LIMITS: Final = ImageLimits(max_bytes=64 << 20)  # noise of 12 megapixels is large as PNG and GIF
SIZES: Final = {
    "224x224": (224, 224),
    "640x480": VGA,
    "480x640": (480, 640),
    "1280x960": (1280, 960),
    "4000x3000": (4000, 3000),
}
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF")
REFERENCE: Final = "open_clip transform"
HEADER: Final = ("format", "size", "way", "ms", "ratio", "max levels", "off by > 1")
_DRAFT_MARGIN: Final = 2  # decode to at least twice the target: draft's own factor of 8 leaves aliasing

_transform: Final = image_transform_v2(PreprocessCfg(), is_train=False)


def ours(file: bytes) -> Pixels:
    """Return the worker's own pixels."""
    return decode_image(file, preprocess=PREPROCESS, limits=LIMITS)


def reference(file: bytes) -> torch.Tensor:
    """Return what open_clip's transform makes of *file*, normalised, (3, S, S)."""
    tensor: torch.Tensor = _transform(Image.open(io.BytesIO(file)))
    return tensor


def torch_resize(file: bytes) -> Pixels:
    """Decode with Pillow, resize bytes with torch's antialiased bicubic."""
    return _torch_fit(np.array(Image.open(io.BytesIO(file)).convert("RGB")))


def pillow(file: bytes) -> Pixels:
    """Decode with Pillow, resize with Pillow only what the crop leaves: what ours does but for JPEGs."""
    return np.array(fit(Image.open(io.BytesIO(file)).convert("RGB"), PREPROCESS))


def draft(file: bytes) -> Pixels:
    """Decode a JPEG at a fraction of its size, then resize with Pillow."""
    image = Image.open(io.BytesIO(file))
    width, height = PREPROCESS.scaled(*image.size)
    image.draft("RGB", (width * _DRAFT_MARGIN, height * _DRAFT_MARGIN))
    small = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    return _cropped(np.asarray(small))


def torchvision_resize(file: bytes) -> Pixels:
    """Decode a JPEG with torchvision, resize bytes with torch."""
    from torchvision.io import decode_jpeg  # noqa: PLC0415

    return _torch_fit(
        decode_jpeg(torch.frombuffer(bytearray(file), dtype=torch.uint8)).permute(1, 2, 0).numpy()
    )


WAYS: Final[dict[str, Way]] = {"ours": ours, "Pillow alone": pillow, "Pillow, torch's resize": torch_resize}
JPEG_WAYS: Final[dict[str, Way]] = {
    "Pillow draft, Pillow's resize": draft,
    "torchvision decode, torch's resize": torchvision_resize,
}


def _torch_fit(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    scaled_width, scaled_height = PREPROCESS.scaled(width, height)
    batch = torch.from_numpy(pixels[None]).permute(0, 3, 1, 2)  # (1, 3, H, W), channels last
    small = torch.nn.functional.interpolate(
        batch, (scaled_height, scaled_width), mode="bicubic", antialias=True
    )
    return _cropped(small[0].permute(1, 2, 0).numpy())


def _cropped(pixels: Pixels) -> Pixels:
    top, left = (round((side - PREPROCESS.size) / 2) for side in pixels.shape[:2])
    return pixels[top : top + PREPROCESS.size, left : left + PREPROCESS.size]


def compare(pixels: Pixels, tensor: torch.Tensor) -> tuple[int, float]:
    """Return the largest difference in levels, and the share of values that differ by more than one."""
    mean, std = (np.array(each)[:, None, None] for each in (PREPROCESS.mean, PREPROCESS.std))
    expected = np.rint((tensor.numpy() * std + mean) * 255).transpose(1, 2, 0)  # (S, S, 3)
    difference = np.abs(pixels.astype(np.int64) - expected)
    return int(difference.max()), float((difference > 1).mean())


def vga_ms(seconds: float) -> dict[str, float]:
    """Return the median milliseconds of ours and of open_clip's transform over VGA JPEGs, on one core."""
    files, turns = jpegs(), {"ours": count(), "open_clip": count()}
    calls: dict[str, Callable[[], object]] = {
        "ours": lambda: ours(files[next(turns["ours"]) % len(files)]),
        "open_clip": lambda: reference(files[next(turns["open_clip"]) % len(files)]),
    }
    return alternate_ms(calls, seconds=seconds)


def routes(seconds: float) -> list[tuple[str, ...]]:
    """Return the lines of the table; each format and size takes *seconds*."""
    lines: list[tuple[str, ...]] = [HEADER]
    for size_name, size in SIZES.items():
        image = picture(size, 0)
        for form in FORMATS:
            lines += _lines(form, size_name, encoded(image, form), seconds)
    return lines


def _lines(form: str, size_name: str, file: bytes, seconds: float) -> list[tuple[str, ...]]:
    ways: dict[str, Way] = {REFERENCE: reference} | WAYS | (JPEG_WAYS if form == "JPEG" else {})
    calls = {name: _bound(way, file) for name, way in ways.items()}
    took_ms = alternate_ms(calls, seconds=seconds)
    expected = _transform(Image.open(io.BytesIO(file)).convert("RGB"))
    lines: list[tuple[str, ...]] = []
    for name, way in ways.items():
        levels, share = (0, 0.0) if name == REFERENCE else compare(way(file), expected)
        ratio = took_ms[name] / took_ms[REFERENCE]
        lines.append(
            (form, size_name, name, f"{took_ms[name]:.2f}", f"{ratio:.2f}", str(levels), f"{share:.3%}")
        )
    return lines


def _bound(way: Way, file: bytes) -> Callable[[], object]:
    return lambda: way(file)


def as_markdown(lines: Sequence[Sequence[str]]) -> str:
    """Return *lines* as a Markdown table."""
    rows = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([rows[0], "| --- | --- | --- | ---: | ---: | ---: | ---: |", *rows[1:]])


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.preprocessing", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.5, help="for each format and size (1.5)")
    parser.add_argument("--vga", type=float, metavar="S", help="only VGA JPEGs, for S seconds, as JSON")
    parser.add_argument("--markdown", action="store_true", help="a Markdown table")
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    if options.vga:
        print(json.dumps(vga_ms(options.vga)))
        return
    lines = routes(options.seconds)
    print(as_markdown(lines) if options.markdown else aligned(lines))


if __name__ == "__main__":
    _main()
