"""What is measured on a GPU: plain CLIPs of random weights, and made-up pictures and texts for them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from safetensors.torch import save_file

from embedding.intake.text import END, START, Tokens
from embedding.model.clip import CLIP
from embedding.model.config import CLIPConfig
from embedding.model.folder import CONFIG_NAME, WEIGHTS_NAME, WeightsFolder
from embedding.model.loader import load_model


if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt
    from torch import Tensor

    from embedding.model.embedder import EmbeddingModel, Precision

MODELS: Final[dict[str, dict[str, Any]]] = {
    "ViT-B-32": {
        "embed_dim": 512,
        "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
    },
    "ViT-L-14": {
        "embed_dim": 768,
        "vision_cfg": {"image_size": 224, "layers": 24, "width": 1024, "patch_size": 14},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 768, "heads": 12, "layers": 12},
    },
}
_TEXT_TOKENS: Final = 10


def folders(chosen: Path | None, place: Path) -> Iterator[WeightsFolder]:
    """Yield the folder *chosen*, or without one a folder of each of MODELS, made in *place*."""
    if chosen:
        yield WeightsFolder(chosen, chosen.resolve().name, "", "MODEL_PATH")
        return
    for name, model_cfg in MODELS.items():
        yield write_random_folder(place / name, model_cfg)


def write_random_folder(path: Path, model_cfg: dict[str, Any], *, seed: int = 0) -> WeightsFolder:
    """Write seeded random weights of *model_cfg* in open_clip's hub format, fp16; *path* names the model.

    Attention is not uniform and norms do something, so that different inputs get different features.
    """
    config = CLIPConfig.from_json(model_cfg)
    if config is None:
        raise ValueError("random weights are made for plain CLIPs only")
    path.mkdir(parents=True)
    (path / CONFIG_NAME).write_text(json.dumps({"model_cfg": model_cfg, "preprocess_cfg": {}}))
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in CLIP(config).state_dict().items()}
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: _weight(name, shape, generator).half() for name, shape in shapes.items()}
    save_file(tensors, path / WEIGHTS_NAME)
    return WeightsFolder(path, path.name, "random", "MODEL_PATH")


def _weight(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    noise = torch.randn(shape, generator=generator)
    if "embedding" in name:
        return noise * 0.5
    if len(shape) < 2:  # noqa: PLR2004  norms, biases and the logit scale
        return noise * 0.1 + (0.0 if name.endswith("bias") else 1.0)
    inputs = shape[0] if name.endswith(("proj", "projection")) else shape[1:].numel()
    return noise * ((1.5 if name.endswith("in_proj_weight") else 1.0) / inputs**0.5)


def load(folder: WeightsFolder, *, device: str, precision: Precision) -> EmbeddingModel:
    """Load *folder* and warm it up."""
    model = load_model(folder, device=device, precision=precision)
    model.warm_up()
    return model


def pictures(count: int, side: int) -> list[npt.NDArray[np.uint8]]:
    """Return *count* different pictures (side, side, 3) of coloured squares under noise."""
    rng = np.random.default_rng(0)
    square = -(-side // 8)
    coarse = rng.integers(0, 200, (count, 8, 8, 3)).repeat(square, 1).repeat(square, 2)[:, :side, :side]
    return list((coarse + rng.integers(0, 56, coarse.shape)).astype(np.uint8))


def short_text() -> Tokens:
    """Return a text of ten tokens."""
    words = range(1000, 1000 + _TEXT_TOKENS - 2)
    return Tokens((START, *words, END), truncated=False, count=_TEXT_TOKENS)
