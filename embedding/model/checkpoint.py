"""A weights file in, the tensors of our two towers out, under open_clip's names.

The layouts that open_clip itself accepts are brought to one: a training checkpoint's `state_dict` and
`module.` prefix, and the `text.` prefix of models built with `custom_text`. The text's names stand at the
root. Pickles are read with `weights_only`, so a file cannot run code.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from embedding.errors import StartupError
from embedding.model.folder import reason_of


if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

_NAMES_TOLD = 3
# Parameters of the loss: no vector depends on them.
_IGNORED = frozenset({"logit_bias"})


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of *file* by name, on the CPU; safetensors are mapped, not read.

    Raises StartupError if it cannot be read or is damaged.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        return _unwrapped(torch.load(file, map_location="cpu", weights_only=True))
    except OSError as exc:
        raise StartupError(f"cannot read {file}: {exc.strerror or exc}; check its permissions") from exc
    except (SafetensorError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as exc:
        raise StartupError(f"{file} is damaged ({reason_of(exc)}); prepare or download it again") from exc


def towers_of(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return *tensors* under the names of `clip.CLIP`."""
    prefix = "module." if all(name.startswith("module.") for name in tensors) else ""
    towers = {name.removeprefix(prefix).removeprefix("text."): tensor for name, tensor in tensors.items()}
    if "logit_scale" in towers and towers["logit_scale"].numel() == 1:
        towers["logit_scale"] = towers["logit_scale"].reshape(())
    return {name: tensor for name, tensor in towers.items() if name not in _IGNORED}


def mismatch(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """Return how *tensors* differ from the names and shapes *wanted*, or `None` if they fit."""
    faults = [
        ("missing", sorted(wanted.keys() - tensors.keys())),
        ("unexpected", sorted(tensors.keys() - wanted.keys())),
        ("of another shape", [
            f"{name} is {_shape(tensors[name])}, not {_shape(tensor)}"
            for name, tensor in wanted.items()
            if name in tensors and tensors[name].shape != tensor.shape
        ]),
    ]  # fmt: skip
    told = [f"{len(names)} {what} ({_some(names)})" for what, names in faults if names]
    return ", ".join(told) or None


def _unwrapped(content: object) -> dict[str, Tensor]:
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if isinstance(content, dict) and all(isinstance(value, torch.Tensor) for value in content.values()):
        return content
    raise ValueError("it holds no state dict")


def _shape(tensor: Tensor) -> str:
    return "x".join(str(side) for side in tensor.shape) or "scalar"


def _some(names: list[str]) -> str:
    more = ["..."] if len(names) > _NAMES_TOLD else []
    return ", ".join(names[:_NAMES_TOLD] + more)
