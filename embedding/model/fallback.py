"""Every architecture that is not a plain CLIP ViT, through open_clip: a slower start, the same interface.

SigLIP, ConvNeXt, CoCa, EVA, ResNets and Hugging Face text towers are built and loaded by open_clip itself
from the same folder. Texts come padded to the model's whole context, because such towers may read their
padding. Importing this module costs the import of open_clip.
"""

from __future__ import annotations

import threading
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import open_clip
import torch
import torch._meta_registrations  # left out by torch_import; an architecture of others may ask for it
from open_clip.tokenizer import canonicalize_text
from safetensors import SafetensorError

from embedding.errors import StartupError, TextTooLong
from embedding.intake.text import Tokenizer, Tokens, clean, repair, squeeze
from embedding.model.embedder import DTYPES, Precision
from embedding.model.folder import reason_of


if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from embedding.model.embedder import TextTokenizer
    from embedding.model.folder import FolderConfig

# What open_clip raises for files that are damaged or do not fit, or for a package that is not there.
FAULTS = (
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    SafetensorError,
    StopIteration,
    TypeError,
    UnpicklingError,
    ValueError,
)
# open_clip's cleaning modes on our own bounded repair: ftfy alone takes 16 s for one hostile text of 100 kB.
_CLEANING = {
    "lower": clean,
    "whitespace": lambda text: squeeze(repair(text)),
    "canonicalize": lambda text: canonicalize_text(repair(text)),
}


class OpenClipTowers:
    """An open_clip model as two encoders of raw features.

    The 16-bit types are autocast's work over fp32 weights: open_clip's own 16-bit modes fail on SigLIP's
    projections and CoCa's pooling.
    """

    def __init__(self, model: nn.Module, *, device: str, precision: Precision) -> None:
        self._model: Any = model
        self._device_type = torch.device(device).type
        self._precision = precision

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Map normalised *pixels* (B, 3, S, S) to features (B, D)."""
        with self._autocast():
            return self._model.encode_image(pixels.float(), normalize=False)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Map *tokens* (B, context) to features (B, D)."""
        with self._autocast():
            return self._model.encode_text(tokens, normalize=False)

    def _autocast(self) -> torch.autocast:
        enabled = self._precision != "fp32"
        return torch.autocast(self._device_type, DTYPES[self._precision], enabled=enabled)


class PaddedTokenizer:
    """CLIP's byte-pair tokenizer, its tokens padded with zeros to the whole context."""

    def __init__(self, context_length: int) -> None:
        self.context_length = context_length
        self._tokenizer = Tokenizer(context_length)

    def tokenize(self, text: str, *, truncate: bool) -> Tokens:
        """Return the padded tokens of *text*; raises as `Tokenizer.tokenize` does."""
        tokens = self._tokenizer.tokenize(text, truncate=truncate)
        padding = (0,) * (self.context_length - len(tokens.ids))
        return Tokens(ids=tokens.ids + padding, truncated=tokens.truncated, count=tokens.count)


class HuggingFaceTokenizer:
    """open_clip's HFTokenizer, which needs the package transformers and its files in the folder."""

    def __init__(self, path: Path, text_cfg: dict[str, Any]) -> None:
        self._tokenizer: Any = open_clip.get_tokenizer(f"local-dir:{path}")
        self._tokenizer.clean_fn = _CLEANING[text_cfg.get("tokenizer_kwargs", {}).get("clean", "whitespace")]
        self.context_length: int = self._tokenizer.context_length
        self._one_at_a_time = threading.Lock()  # it keeps truncation and padding as state

    def tokenize(self, text: str, *, truncate: bool) -> Tokens:
        """Return the padded tokens of *text*.

        Raises TextTooLong where they exceed the context and *truncate* is false.
        """
        with self._one_at_a_time:
            count = len(self._tokenizer.tokenizer(self._tokenizer.clean_fn(text), verbose=False).input_ids)
            ids = tuple(self._tokenizer([text])[0].tolist())
        if count > self.context_length and not truncate:
            raise TextTooLong(f"text has {count} tokens; the limit is {self.context_length}")
        return Tokens(ids=ids, truncated=count > self.context_length, count=count)


def load_open_clip(
    path: Path, config: FolderConfig, *, device: str, precision: Precision
) -> tuple[OpenClipTowers, TextTokenizer]:
    """Let open_clip load the folder *path*, in evaluation mode.

    Raises StartupError with open_clip's reason if it cannot.
    """
    try:
        model = open_clip.create_model(f"local-dir:{path}", device=device)
        tokenizer = _tokenizer(path, config.model_cfg["text_cfg"])
    except FAULTS as exc:
        raise StartupError(f"open_clip cannot load {path}: {reason_of(exc)}") from exc
    frozen = model.eval().requires_grad_(requires_grad=False)
    return OpenClipTowers(frozen, device=device, precision=precision), tokenizer


def _tokenizer(path: Path, text_cfg: dict[str, Any]) -> TextTokenizer:
    if text_cfg.get("hf_tokenizer_name"):
        return HuggingFaceTokenizer(path, text_cfg)
    if text_cfg.get("tokenizer_kwargs"):
        raise ValueError("tokenizer_kwargs are supported with hf_tokenizer_name only")
    return PaddedTokenizer(text_cfg.get("context_length", 77))
