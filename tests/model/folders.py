"""Real checkpoints of shrunk models, written by open_clip's own classes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file

from embedding.model.folder import CONFIG_NAME, WEIGHTS_NAME, WeightsFolder


if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

OPENAI_PREPROCESS = {
    "mean": list(open_clip.OPENAI_DATASET_MEAN),
    "std": list(open_clip.OPENAI_DATASET_STD),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
# The smallest plain CLIP: what the tests need that are not about numbers.
TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


def shrunk(name: str, layers: int) -> dict:
    """Return open_clip's config *name* with towers of *layers* blocks and its widths unchanged."""
    config = open_clip.get_model_config(name)
    config["vision_cfg"]["layers"] = config["text_cfg"]["layers"] = layers
    return config


def random_model(model_cfg: dict, *, seed: int = 0) -> torch.nn.Module:
    """Build *model_cfg* in open_clip with seeded weights whose faults would show.

    A fresh model hides them: norms and biases do nothing, and attention is all but uniform.
    """
    torch.manual_seed(seed)
    model_cfg = dict(model_cfg)
    custom_text = model_cfg.pop("custom_text", False)
    architecture = open_clip.CustomTextCLIP if custom_text else open_clip.CLIP
    model = (open_clip.CoCa if "multimodal_cfg" in model_cfg else architecture)(**model_cfg).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
            elif name.endswith("in_proj_weight"):
                parameter.mul_(2)
    return model


def pictures(side: int, *, count: int = 3) -> npt.NDArray[np.uint8]:
    """Return *count* pictures (count, side, side, 3) of sixteen coloured squares each; no two look alike."""
    squares = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return squares.repeat(side // 4, axis=1).repeat(side // 4, axis=2)


def write_config(path: Path, model_cfg: dict, **more: object) -> None:
    """Write `open_clip_config.json` for *model_cfg* into the folder *path*."""
    path.mkdir(parents=True, exist_ok=True)
    document = {"model_cfg": model_cfg, "preprocess_cfg": OPENAI_PREPROCESS, **more}
    (path / CONFIG_NAME).write_text(json.dumps(document))


def write_folder(
    path: Path,
    model_cfg: dict,
    *,
    dtype: torch.dtype = torch.float32,
    file: str = WEIGHTS_NAME,
    prefix: str = "",
) -> WeightsFolder:
    """Write a folder of random weights in open_clip's hub format; the file's suffix says its format."""
    write_config(path, model_cfg)
    state = random_model(model_cfg).state_dict()
    tensors = {f"{prefix}{name}": tensor.to(dtype).contiguous() for name, tensor in state.items()}
    if file.endswith(".safetensors"):
        save_file(tensors, path / file)
    else:
        torch.save({"epoch": 1, "name": "run", "state_dict": tensors} if prefix else tensors, path / file)
    return WeightsFolder(path, path.name, "", "MODEL_PATH")
