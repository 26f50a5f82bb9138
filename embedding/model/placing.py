"""A checkpoint's tensors onto the device: read, converted and packed once, a few at a time.

So the memory in use at the peak is the finished model and one part for each thread, not the file beside it.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import torch
from torch import nn

from embedding.model.packing import packable, packed


if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from embedding.model.checkpoint import Checkpoint
    from embedding.model.clip import CLIP

PART_NUMBERS: Final = 1 << 22  # in all tensors of a part: 8 MB of fp16
MAX_THREADS: Final = 4  # more would wait for memory


def place(towers: CLIP, checkpoint: Checkpoint, *, device: str, dtype: torch.dtype) -> None:
    """Give *towers*, built on the meta device, the tensors of *checkpoint* in their final form.

    Raises torch.OutOfMemoryError if the device cannot hold them, StartupError if the file is damaged.
    """
    to_pack = packable(towers, device=device, dtype=dtype)

    def placed(names: list[str]) -> dict[str, Tensor]:
        tensors = {
            name: tensor.to(device, dtype, copy=True) for name, tensor in checkpoint.read(names).items()
        }
        return {name: packed(tensor) if name in to_pack else tensor for name, tensor in tensors.items()}

    threads = min(MAX_THREADS, os.cpu_count() or 1) if device == "cpu" else 1
    with ThreadPoolExecutor(threads, "load") as pool:
        for part in pool.map(placed, _parts(checkpoint.shapes)):
            for name, tensor in part.items():
                owner, _, leaf = name.rpartition(".")
                setattr(towers.get_submodule(owner), leaf, nn.Parameter(tensor, requires_grad=False))


def _parts(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[list[str]]:
    """Split the names of *shapes* into parts of about PART_NUMBERS numbers."""
    names: list[str] = []
    numbers = 0
    for name, shape in shapes.items():
        names.append(name)
        numbers += torch.Size(shape).numel()
        if numbers >= PART_NUMBERS:
            yield names
            names, numbers = [], 0
    if names:
        yield names
