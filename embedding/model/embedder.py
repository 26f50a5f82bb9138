"""The model as everything else sees it: pictures and tokens in, features out, and what made them.

Pixels go to the device as bytes and are normalised there, which moves a quarter of the data. The identity
holds a fingerprint of what made a vector: config, preprocessing, weights and tokenizer. Device, precision
and place are not part of it; they move a vector by less than the bounds that `golden.py` checks at start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch

from embedding.model.cuda import CudaEncoders, text_bucket


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
    """Two towers on one device. Batches hold at least one item.

    On a CPU any thread may call; on CUDA one at a time, since batches share buffers and graphs there.
    """

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
        mean, std = (torch.tensor(x, dtype=torch.float64) for x in (preprocess.mean, preprocess.std))
        self._scale = (1 / (255 * std)).float().view(3, 1, 1).to(self._device)
        self._shift = (-mean / std).float().view(3, 1, 1).to(self._device)
        self._cuda = CudaEncoders(self._device) if self._device.type == "cuda" else None

    @torch.inference_mode()
    def embed_images(self, pixels: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """Map B pictures (S, S, 3) uint8 to features (B, D) float32, not normalised, in the same order."""
        if self._cuda is None:
            return _to_numpy(self._image_features(torch.from_numpy(np.stack(pixels))))
        staged = self._cuda.images.stage(len(pixels), *pixels[0].shape)
        np.stack(pixels, out=staged.numpy())
        return _to_numpy(self._cuda.images.run(self._image_features, staged))

    @torch.inference_mode()
    def embed_texts(self, tokens: Sequence[Tokens]) -> npt.NDArray[np.float32]:
        """Map B tokenised texts to features (B, D) float32, not normalised, in the same order."""
        longest = max(len(text.ids) for text in tokens)
        if self._cuda is None:
            return _to_numpy(
                self._text_features(_filled(torch.empty(len(tokens), longest, dtype=torch.int64), tokens))
            )
        length = text_bucket(longest, self.identity.context_length)
        staged = _filled(self._cuda.texts.stage(len(tokens), length), tokens)
        return _to_numpy(self._cuda.texts.run(self._text_features, staged))

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Make small batches fast on CUDA; elsewhere there is nothing to do.

        Towers of open_clip stay without graphs: their code is not ours to vouch for.
        """
        if self._cuda is None or self.identity.architecture != "own":
            return
        self._cuda.capture(
            image=self._image_features,
            text=self._text_features,
            side=self.identity.image_size,
            context_length=self.identity.context_length,
        )

    def normalise(self, pixels: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
        """Map B pictures (S, S, 3) to (pixels / 255 - mean) / std, (B, 3, S, S), as the model's type."""
        return self._normalised(torch.from_numpy(np.stack(pixels)).to(self._device))

    def _normalised(self, batch: Tensor) -> Tensor:
        # Planes first, then arithmetic in place: half the time of the other order, patches included.
        x = batch.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        return x.mul_(self._scale).add_(self._shift).to(self._dtype)

    def _image_features(self, batch: Tensor) -> Tensor:
        return self._towers.encode_image(self._normalised(batch)).float()

    def _text_features(self, ids: Tensor) -> Tensor:
        return self._towers.encode_text(ids).float()


def _filled(ids: Tensor, tokens: Sequence[Tokens]) -> Tensor:
    """Return *ids* (B, L) int64 filled with *tokens*, padded with zeros."""
    rows = ids.numpy()
    rows.fill(0)
    for row, text in zip(rows, tokens, strict=True):
        row[: len(text.ids)] = text.ids
    return ids


def _to_numpy(features: Tensor) -> npt.NDArray[np.float32]:
    vectors: npt.NDArray[np.float32] = features.cpu().numpy()
    return vectors
