"""The ceiling: open_clip's bare forwards with the machine to themselves, beside ours on the same weights.

    python -m bench.ceiling FOLDER [--dtype bf16|fp32] [--seconds S]

prints one JSON object of medians. Tensors are prepared beforehand: no queue, no HTTP, no decoding, no
preprocessing. What is compared with each other alternates, so that a disturbance hits both. The 16 pictures
of a batch job and the 32 texts run through our model as the engine calls it. Beside them stand the decoding
of one picture as the worker does it, and a call of the documented handler, which decodes too, in fp32.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import open_clip
import torch
from PIL import Image

from bench.figures import alternate_ms
from bench.inputs import TEXTS, jpegs
from embedding.intake.image import ImageLimits, decode_image
from embedding.model.folder import WeightsFolder
from embedding.model.loader import load_model


if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16}
BATCH: Final = 32
JOB: Final = 16


def load(folder: str, dtype: torch.dtype) -> tuple[Any, Callable[[Image.Image], Tensor]]:
    """Return open_clip's model of *folder* in *dtype*, and its evaluation transform."""
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return model.eval().to(dtype), transform


def transformed(transform: Callable[[Image.Image], Tensor], file: bytes) -> Tensor:
    """Return *file* decoded and prepared as open_clip's documentation does it, (3, S, S)."""
    return transform(Image.open(io.BytesIO(file)))


def measure(folder: str, dtype_name: str, seconds: float) -> dict[str, float]:
    """Return the median milliseconds of each forward, open_clip's and ours, by name."""
    groups = _forwards(
        folder, dtype_name
    )  # not in inference mode: texts of a model loaded in it take 4 times
    shares = (0.35, 0.12, 0.12, 0.12, 0.12, 0.17)
    medians: dict[str, float] = {}
    with torch.inference_mode():
        for calls, share in zip(groups, shares, strict=True):
            medians |= alternate_ms(calls, seconds=seconds * share)
    return medians


def _forwards(folder: str, dtype_name: str) -> list[dict[str, Callable[[], object]]]:
    dtype = DTYPES[dtype_name]
    model, transform = load(folder, dtype)
    files = jpegs()
    batch = torch.stack([transformed(transform, file) for file in files]).to(dtype)  # (32, 3, S, S)
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(list(TEXTS))  # (32, 77)
    source = WeightsFolder(Path(folder), "", "", "MODEL_PATH")
    own = load_model(source, device="cpu", precision=dtype_name)  # type: ignore[arg-type]
    pixels = [decode_image(file, preprocess=own.preprocess, limits=ImageLimits()) for file in files]
    own_tokens = [own.tokenizer.tokenize(text, truncate=True) for text in TEXTS]
    return [
        {"open_clip_images_32_ms": lambda: model.encode_image(batch)},
        {"open_clip_image_1_ms": lambda: model.encode_image(batch[:1])},
        {"own_images_32_ms": lambda: own.embed_images(pixels)},
        {
            "own_images_16_ms": lambda: own.embed_images(pixels[:JOB]),
            "own_image_1_ms": lambda: own.embed_images(pixels[:1]),
        },
        {
            "open_clip_texts_32_ms": lambda: model.encode_text(tokens),
            "own_texts_32_ms": lambda: own.embed_texts(own_tokens),
        },
        {
            "open_clip_text_1_ms": lambda: model.encode_text(tokens[:1]),
            "own_text_1_ms": lambda: own.embed_texts(own_tokens[:1]),
            "own_decode_ms": lambda: decode_image(files[0], preprocess=own.preprocess, limits=ImageLimits()),
            "documented_call_ms": _documented_call(files[0]),
        },
    ]


def _documented_call(file: bytes) -> Callable[[], object]:
    from bench.baseline import handler  # noqa: PLC0415  loads the model of the command line's first argument

    job = {"input": {"image_base64": base64.b64encode(file).decode()}}
    return lambda: handler(job)


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.ceiling", description=__doc__)
    parser.add_argument("folder", help="a folder in open_clip's hub format")
    parser.add_argument("--dtype", choices=list(DTYPES), default="bf16", help="of both models (bf16)")
    parser.add_argument("--seconds", type=float, default=12.0, help="how long to measure (12)")
    options = parser.parse_args()
    print(json.dumps(measure(options.folder, options.dtype, options.seconds)))


if __name__ == "__main__":
    _main()
