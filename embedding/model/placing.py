"""A checkpoint's tensors onto the device: read, converted and packed once, a few at a time.

So the memory in use at the peak is the finished model and one part for each thread, not the file beside it.
What is made on the way lies in memory that is used again: to touch new pages costs more than to convert, and
a heap left with holes holds 40 MB more for ViT-B/32. Each call into torch covers many tensors, because each
may have to wait for the interpreter, which imports hold meanwhile.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from threading import local
from typing import TYPE_CHECKING, Final

import torch
from torch import nn

from embedding.model.packing import packable, packed


if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

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
    converter = _Converter(dtype)

    @torch.no_grad()  # a pickle may hold parameters, which would not be copied in place
    def placed(names: list[str]) -> dict[str, Tensor]:
        tensors = checkpoint.read(names)
        if device != "cpu":
            return {name: tensor.to(device, dtype, copy=True) for name, tensor in tensors.items()}
        return converter.convert(tensors, to_pack)

    threads = min(MAX_THREADS, os.cpu_count() or 1) if device == "cpu" else 1
    with ThreadPoolExecutor(threads, "load") as pool:
        for part in pool.map(placed, _parts(checkpoint.shapes)):
            for name, tensor in part.items():
                owner, _, leaf = name.rpartition(".")
                setattr(towers.get_submodule(owner), leaf, nn.Parameter(tensor, requires_grad=False))


def _parts(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[list[str]]:
    """Split the names of *shapes* into parts of at most PART_NUMBERS numbers, or of one tensor."""
    names: list[str] = []
    numbers = 0
    for name, shape in shapes.items():
        more = torch.Size(shape).numel()
        if names and numbers + more > PART_NUMBERS:
            yield names
            names, numbers = [], 0
        names.append(name)
        numbers += more
    if names:
        yield names


class _Converter:
    """Converts parts on the CPU; each thread has scratch memory of its own."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._scratch = local()

    def convert(self, tensors: Mapping[str, Tensor], to_pack: frozenset[str]) -> dict[str, Tensor]:
        """Return new tensors of the final type, those of *to_pack* packed."""
        packing = [name for name in tensors if name in to_pack]
        keeping = [name for name in tensors if name not in to_pack]
        to_keep, to_pass_on = ([tensors[name] for name in names] for names in (keeping, packing))
        kept = _cut(torch.empty(_numbers(to_keep), dtype=self._dtype), to_keep)
        passed_on = _cut(self._room("passed on", self._dtype, _numbers(to_pass_on)), to_pass_on)
        self._copy(to_keep + to_pass_on, kept + passed_on)
        return dict(zip(keeping + packing, kept + [packed(tensor) for tensor in passed_on], strict=True))

    def _copy(self, sources: list[Tensor], targets: list[Tensor]) -> None:
        """Copy with conversion; fp16 to bf16 by way of fp32, which is twice as fast as torch's direct way."""
        if sources[0].dtype is not torch.float16 or self._dtype is not torch.bfloat16:
            torch._foreach_copy_(targets, sources)
            return
        for some, into in _pieces(sources, targets):
            wide = _cut(self._room("wide", torch.float32, _numbers(some)), some)
            torch._foreach_copy_(wide, some)
            torch._foreach_copy_(into, wide)

    def _room(self, use: str, dtype: torch.dtype, numbers: int) -> Tensor:
        """Return a tensor (*numbers*,) in this thread's memory for *use*."""
        room: Tensor | None = getattr(self._scratch, use, None)
        if room is None or len(room) < numbers:
            room = torch.empty(max(numbers, PART_NUMBERS), dtype=dtype)
            setattr(self._scratch, use, room)
        return room[:numbers]


def _cut(flat: Tensor, like: list[Tensor]) -> list[Tensor]:
    """Cut *flat* into tensors of the shapes of *like*."""
    pieces = flat.split([tensor.numel() for tensor in like])
    return [piece.view(tensor.shape) for piece, tensor in zip(pieces, like, strict=True)]


def _numbers(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def _pieces(sources: list[Tensor], targets: list[Tensor]) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Yield both as they are; where they are one tensor, which may be large, in pieces of a part's size."""
    if len(sources) > 1:
        yield sources, targets
        return
    pieces = (tensor.flatten().split(PART_NUMBERS) for tensor in (*sources, *targets))
    for source, target in zip(*pieces, strict=True):
        yield [source], [target]
