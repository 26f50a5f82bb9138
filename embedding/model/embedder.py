"""The model as everything else sees it: pictures and tokens in, features out, and what made them.

Pixels go to the device as bytes and are normalised there, which moves a quarter of the data. The identity
holds a fingerprint of what made a vector: config, preprocessing, weights and tokenizer. Device, precision
and place are not part of it; they move a vector by less than the bounds that `golden.py` checks at start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch


if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from torch import Tensor

    from embedding.intake.preprocess import Preprocess
    from embedding.intake.text import Tokens
    from embedding.model.folder import WeightsFolder

Precision = Literal["fp32", "fp16", "bf16"]

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class TextTokenizer(Protocol):
    """Text to tokens: ours, or open_clip's behind the same method."""

    context_length: int

    def tokenize(self, text: str, *, truncate: bool) -> Tokens:
        """Return the tokens of *text*; raises TextTooLong if it may not be truncated."""


class Towers(Protocol):
    """Two encoders: ours, or an open_clip model."""

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Map normalised *pixels* (B, 3, S, S) to features (B, D)."""

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Map *tokens* (B, L) int64 to features (B, D)."""


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What is served, and on what. *device* is as torch writes it; *image_size* is in pixels."""

    model_name: str
    pretrained: str
    dim: int
    image_size: int
    context_length: int
    device: str
    precision: Precision
    fingerprint: str
    weights_sha256: str
    architecture: Literal["own", "open_clip"]


class EmbeddingModel:
    """Two towers on one device. Batches hold at least one item; calls come from one thread at a time."""

    def __init__(
        self,
        *,
        identity: ModelIdentity,
        folder: WeightsFolder,
        preprocess: Preprocess,
        tokenizer: TextTokenizer,
        towers: Towers,
    ) -> None:
        self.identity = identity
        self.folder = folder
        self.preprocess = preprocess
        self.tokenizer = tokenizer
        self._towers = towers
        self._device = torch.device(identity.device)
        self._dtype = DTYPES[identity.precision]
        self._mean = torch.tensor(preprocess.mean, device=self._device).view(3, 1, 1)
        self._std = torch.tensor(preprocess.std, device=self._device).view(3, 1, 1)

    @torch.inference_mode()
    def embed_images(self, pixels: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """Map B pictures (S, S, 3) uint8 to features (B, D) float32, not normalised, in the same order."""
        return _to_numpy(self._towers.encode_image(self.normalise(pixels)))

    @torch.inference_mode()
    def embed_texts(self, tokens: Sequence[Tokens]) -> npt.NDArray[np.float32]:
        """Map B tokenised texts to features (B, D) float32, not normalised, in the same order."""
        ids = np.zeros((len(tokens), max(len(text.ids) for text in tokens)), dtype=np.int64)
        for row, text in zip(ids, tokens, strict=True):
            row[: len(text.ids)] = text.ids
        return _to_numpy(self._towers.encode_text(self._on_device(ids)))

    def normalise(self, pixels: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
        """Map B pictures (S, S, 3) to (pixels / 255 - mean) / std, (B, 3, S, S), as the model's type."""
        x = self._on_device(np.stack(pixels)).permute(0, 3, 1, 2).float()  # (B, 3, S, S)
        return x.div_(255).sub_(self._mean).div_(self._std).to(self._dtype)

    def _on_device(self, batch: npt.NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(batch)
        if self._device.type == "cuda":
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor


def _to_numpy(features: Tensor) -> npt.NDArray[np.float32]:
    vectors: npt.NDArray[np.float32] = features.float().cpu().numpy()
    return vectors
