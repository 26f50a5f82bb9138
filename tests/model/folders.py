"""Real checkpoints of shrunk models, in open_clip's names and layouts; plain CLIPs need no open_clip."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from embedding.intake.preprocess import OPENAI_MEAN, OPENAI_STD
from embedding.model.clip import CLIP
from embedding.model.config import CLIPConfig
from embedding.model.folder import CONFIG_NAME, WEIGHTS_NAME, WeightsFolder
from embedding.model.loader import _Uninitialised
from tests.model import references


try:
    import open_clip
except ModuleNotFoundError:  # or something that it imports
    open_clip = None

if TYPE_CHECKING:
    from pathlib import Path

NO_OPEN_CLIP = "open_clip, or what it imports, is not installed"
needs_open_clip = pytest.mark.skipif(open_clip is None, reason=NO_OPEN_CLIP)

OPENAI_PREPROCESS = {
    "mean": list(OPENAI_MEAN),
    "std": list(OPENAI_STD),
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
    """Build *model_cfg* in open_clip with the references' weights."""
    model_cfg = dict(model_cfg)
    custom_text = model_cfg.pop("custom_text", False)
    architecture = open_clip.CustomTextCLIP if custom_text else open_clip.CLIP
    model = (open_clip.CoCa if "multimodal_cfg" in model_cfg else architecture)(**model_cfg).eval()
    model.load_state_dict({**model.state_dict(), **_seeded(model.state_dict(), seed=seed)})
    return model


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
    state = random_state(model_cfg)
    tensors = {f"{prefix}{name}": tensor.to(dtype).contiguous() for name, tensor in state.items()}
    if file.endswith(".safetensors"):
        save_file(tensors, path / file)
    else:
        torch.save({"epoch": 1, "name": "run", "state_dict": tensors} if prefix else tensors, path / file)
    return WeightsFolder(path, path.name, "", "MODEL_PATH")


def random_state(model_cfg: dict) -> dict[str, torch.Tensor]:
    """Return the references' weights for *model_cfg*, under open_clip's names."""
    own = CLIPConfig.from_json(model_cfg)
    if own is None:
        return random_model(model_cfg).state_dict()
    with _Uninitialised(), torch.device("meta"):
        towers = CLIP(own)
    state = _seeded(towers.state_dict())
    if not model_cfg.get("custom_text"):
        return state
    at_root = ("visual.", "logit_scale")
    return {name if name.startswith(at_root) else f"text.{name}": tensor for name, tensor in state.items()}


def _seeded(tensors: dict[str, torch.Tensor], *, seed: int = 0) -> dict[str, torch.Tensor]:
    return {
        name: torch.from_numpy(references.weight(name, tensor.shape, seed=seed)).to(tensor.dtype)
        for name, tensor in tensors.items()
        if tensor.is_floating_point()
    }
