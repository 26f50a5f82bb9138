"""A small model at random weights, made by open_clip, and what a hub holds of it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file

from embedding.model.folder import CONFIG_NAME, WEIGHTS_NAME
from tests.model.folders import OPENAI_PREPROCESS, random_model, write_config


if TYPE_CHECKING:
    from pathlib import Path

SIDE = 32
TEXT = "a red circle"
# 54 MB, mostly its words: huggingface_hub reads 10 MiB at a time, so less could not be cut off half-way.
MODEL = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": SIDE, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 256, "heads": 4, "layers": 1},
}


def write_model(path: Path, model_cfg: dict = MODEL) -> dict[str, bytes]:
    """Write the model's folder; return its files by name."""
    write_config(path, model_cfg)
    save_file(random_model(model_cfg).state_dict(), path / WEIGHTS_NAME)
    return {name: (path / name).read_bytes() for name in (CONFIG_NAME, WEIGHTS_NAME)}


def picture() -> bytes:
    """Return a PNG of the model's own size."""
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@torch.inference_mode()
def vectors(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return what open_clip makes of the picture and of TEXT with the weights in *path*, normalised."""
    model = open_clip.create_model(f"local-dir:{path}", precision="fp32").eval()
    config = {name: OPENAI_PREPROCESS[name] for name in ("mean", "std", "interpolation", "resize_mode")}
    transform = image_transform_v2(PreprocessCfg(size=SIDE, **config), is_train=False)
    pixels = transform(Image.open(io.BytesIO(picture()))).unsqueeze(0)
    image = model.encode_image(pixels, normalize=True)[0]
    text = model.encode_text(open_clip.tokenize([TEXT]), normalize=True)[0]
    return image.numpy(), text.numpy()
