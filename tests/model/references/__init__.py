"""What open_clip makes of made-up models, pictures and texts, stored so that parity needs no open_clip.

Every input is made from PCG64's raw stream, which numpy promises never to change, so it is the same numbers
on every machine: weights by their names and shapes, pictures by their sizes. The answers lie in files
beside this one, computed by open_clip in fp32 on a CPU:

- `configs.json`: the shrunk models, by name, as open_clip describes them
- `vectors.npz`: features of `pictures` and TEXTS for each, and the golden vectors of the tiny one
- `pixels.npz`: the transform's output in levels of 255 for each of PIXELS
- `tokens.json`: the tokens of TOKEN_TEXTS

`python -m tests.model.references` makes them anew, for a new release of open_clip or other inputs.
"""

from __future__ import annotations

import hashlib
import json
import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image


if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

FOLDER: Final = Path(__file__).parent
CONFIGS, VECTORS, PIXEL_LEVELS, TOKENS = (
    FOLDER / name for name in ("configs.json", "vectors.npz", "pixels.npz", "tokens.json")
)
# open_clip's name, blocks per tower: widths, heads, patches and activations are the real ones. Their heads
# are 64, 80 and 104 wide, their images 50, 197 and 257 positions long.
FAMILY: Final = {
    "ViT-B-32": 3,
    "ViT-B-32-quickgelu": 3,
    "ViT-B-16": 2,
    "ViT-L-14": 2,
    "ViT-H-14-quickgelu": 1,
    "ViT-bigG-14": 1,
}
TEXTS: Final = [
    "a red circle",
    "",
    "two dogs, playing in the snow; a photo from 2019!",
    "naïve café 字 😀",
    "word " * 100,
    "before <end_of_text> behind",
]
TOKEN_TEXTS: Final = [
    *TEXTS,
    "<start_of_text>", "<END_OF_TEXT>", "<ſtart_of_text>", "<start_of _text>", "<|endoftext|>",
    "it's WE'LL don't they've I'm he'd you're", "'ſ ''", "&amp;amp;lt; &lt;b&gt; & &#39; &#x1F600; &notit;",
    "Ã© â€™ â‚¬", "é e\u0301", "İ ß ﬁ ＦＵＬＬ", "한글 \u1112\u1161", "👩\u200d👩\u200d👧", "مرحبا بالعالم",
    "0123456789 ½ x² 3.14", "!!! ... ?!?", " \n\r\n\t\x85\u2028\ufeff\u200b ", "\x00\x1b[31m",
    "a" * 70, "supercalifragilisticexpialidocious", "ababababab" * 7, "日本語のテキスト", "Съешь же ещё",
]  # fmt: skip
# Width, height of the picture; side, filter and way of fitting it.
PIXELS: Final = [
    (640, 480, 96, "bicubic", "shortest"),
    (480, 640, 64, "bicubic", "shortest"),
    (224, 449, 64, "bicubic", "shortest"),
    (37, 100, 64, "bicubic", "shortest"),
    (96, 96, 96, "bicubic", "shortest"),
    (320, 200, 64, "bilinear", "shortest"),
    (320, 200, 64, "bicubic", "squash"),
    (200, 320, 64, "bicubic", "longest"),
]


def words(seed: str, count: int) -> npt.NDArray[np.uint32]:
    """Return *count* random words of 32 bits that belong to *seed*."""
    entropy = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:16], "little")
    raw = np.random.PCG64(entropy).random_raw((count + 1) // 2)
    return raw.astype("<u8").view("<u4")[:count]


def weight(name: str, shape: Sequence[int], *, seed: int = 0) -> npt.NDArray[np.float16]:
    """Return the weight that belongs to open_clip's *name* and *shape*, uniform around its mean.

    It is a number of 16 bits, so that files of 16 and of 32 bits hold the same model.

    Its size is such that faults show: norms and biases do something, attention is not uniform, what a
    block adds weighs in the sum, positions count. A model fresh from open_clip hides all of these.
    """
    mean, deviation = _mean_and_deviation(name, shape)
    noise = words(f"{seed} {name} {'x'.join(map(str, shape))}", math.prod(shape)) >> np.uint32(8)
    values = noise.astype(np.float32)  # 24 bits: exact
    values -= np.float32(2**23)
    values *= np.float32(deviation * math.sqrt(3) / 2**23)
    values += np.float32(mean)
    return values.astype(np.float16).reshape(shape)


def _mean_and_deviation(name: str, shape: Sequence[int]) -> tuple[float, float]:
    if name.endswith("logit_scale"):
        return math.log(100), 0.0
    if "embedding" in name:
        return 0.0, 0.5
    if len(shape) < 2:  # norms and biases
        return (0.0 if name.endswith(("bias", "running_mean")) else 1.0), 0.1
    inputs = shape[0] if name.endswith(("proj", "projection")) else math.prod(shape[1:])
    return 0.0, (2 if name.endswith("_proj.weight") else 1) / math.sqrt(inputs)


def pictures(side: int, *, count: int = 3) -> npt.NDArray[np.uint8]:
    """Return *count* pictures (count, side, side, 3) of sixteen coloured squares each; no two look alike."""
    squares = words("squares", count * 12).view(np.uint8).reshape(count, 4, 4, 3)
    return squares.repeat(side // 4, axis=1).repeat(side // 4, axis=2)


def picture(width: int, height: int) -> Image.Image:
    """Return a picture of *width* by *height*: gradients under a little noise, with hard edges."""
    x, y = np.arange(width), np.arange(height)[:, None]
    pixels = np.empty((height, width, 3), dtype=np.int64)
    pixels[..., 0], pixels[..., 1] = x * 255 // width, y * 255 // height
    pixels[..., 2] = (x // 20 + y // 20) % 2 * 200
    pixels += words(f"{width}x{height}", pixels.size).reshape(pixels.shape) >> np.uint32(27)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def config(name: str) -> dict[str, Any]:
    """Return the shrunk config of *name*, one of FAMILY."""
    return json.loads(CONFIGS.read_text(encoding="utf-8"))[name]


@cache
def vectors(name: str) -> tuple[Vectors, Vectors]:
    """Return open_clip's features of `pictures` (3, D) and of TEXTS (6, D) for the model *name*."""
    with np.load(VECTORS) as stored:
        return stored[f"{name} images"], stored[f"{name} texts"]


@cache
def golden_vectors() -> list[list[float]]:
    """Return the golden vectors (3, D) of the tiny model."""
    with np.load(VECTORS) as stored:
        return stored["golden"].tolist()


@cache
def normalised() -> Vectors:
    """Return one number for each square of `pictures` after open_clip's transform, (3, 3, 4, 4)."""
    with np.load(PIXEL_LEVELS) as stored:
        return stored["normalised"]


@cache
def levels(case: int) -> npt.NDArray[np.uint8]:
    """Return what open_clip's transform makes of the picture of PIXELS[*case*], (S, S, 3)."""
    with np.load(PIXEL_LEVELS) as stored:
        return stored[f"levels {case}"]


@cache
def tokens() -> list[list[int]]:
    """Return the tokens of each of TOKEN_TEXTS, start and end included, without padding."""
    return json.loads(TOKENS.read_text(encoding="utf-8"))
