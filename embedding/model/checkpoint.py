"""A weights file in, the tensors of our two towers out, under open_clip's names.

The layouts that open_clip itself accepts are brought to one: a training checkpoint's `state_dict` and
`module.` prefix, and the `text.` prefix of models built with `custom_text`. The text's names stand at the
root. Pickles are read with `weights_only`, so a file cannot run code.
"""

from __future__ import annotations

import pickle
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open

from embedding.errors import StartupError
from embedding.model.folder import reason_of


if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

_NAMES_TOLD = 3
# Parameters of the loss: no vector depends on them.
_IGNORED = frozenset({"logit_bias"})


class Checkpoint:
    """A weights file, its tensors under the names of `clip.CLIP`."""

    def __init__(self, file: Path) -> None:
        """Read names and shapes; of a pickle, everything.

        Raises StartupError if the file cannot be read or is damaged.
        """
        self._file = file
        self._pickled = None if file.suffix == ".safetensors" else _unpickled(file)
        shapes = _shapes(file) if self._pickled is None else _shapes_of(self._pickled)
        self._names = own_names(shapes)
        self.shapes = {ours: _plain(ours, shapes[theirs]) for ours, theirs in self._names.items()}

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Return the tensors *names* on the CPU; of safetensors, a mapping that is gone when they are.

        Mapped pages count as memory in use, so what is read in parts never has the whole file there.
        """
        theirs = {name: self._names[name] for name in names}
        given = self._pickled or _mapped(self._file, theirs.values())
        tensors = {name: given[at] for name, at in theirs.items()}
        return {name: _shaped(tensor, self.shapes[name]) for name, tensor in tensors.items()}


def own_names(theirs: Collection[str]) -> dict[str, str]:
    """Return the names of `clip.CLIP` with those of a file, *theirs*."""
    prefix = "module." if all(name.startswith("module.") for name in theirs) else ""
    names = {name.removeprefix(prefix).removeprefix("text."): name for name in theirs}
    return {ours: name for ours, name in names.items() if ours not in _IGNORED}


def _plain(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return () if name == "logit_scale" and shape == (1,) else shape


def _shaped(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    return tensor if tensor.shape == shape else tensor.reshape(shape)


def _shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    with _damage_told(file), safe_open(file, framework="pt") as opened:
        return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118


def _mapped(file: Path, names: Iterable[str]) -> dict[str, Tensor]:
    with _damage_told(file), safe_open(file, framework="pt") as opened:
        return {name: opened.get_tensor(name) for name in names}


def _unpickled(file: Path) -> dict[str, Tensor]:
    with _damage_told(file):
        return _unwrapped(torch.load(file, map_location="cpu", weights_only=True))


@contextmanager
def _damage_told(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise StartupError(f"cannot read {file}: {exc.strerror or exc}; check its permissions") from exc
    except (SafetensorError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as exc:
        raise StartupError(f"{file} is damaged ({reason_of(exc)}); prepare or download it again") from exc


def mismatch(given: Mapping[str, Sequence[int]], wanted: Mapping[str, Sequence[int]]) -> str | None:
    """Return how the names and shapes *given* differ from those *wanted*, or `None` if they fit."""
    faults = [
        ("missing", sorted(wanted.keys() - given.keys())),
        ("unexpected", sorted(given.keys() - wanted.keys())),
        ("of another shape", [
            f"{name} is {_told(given[name])}, not {_told(shape)}"
            for name, shape in wanted.items()
            if name in given and tuple(given[name]) != tuple(shape)
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


def _told(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _some(names: list[str]) -> str:
    more = ["..."] if len(names) > _NAMES_TOLD else []
    return ", ".join(names[:_NAMES_TOLD] + more)
