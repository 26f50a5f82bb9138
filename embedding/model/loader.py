"""A weights folder in, a model ready to embed out.

Plain CLIP ViTs run on our own two towers: built without memory (the meta device), then given the file's
tensors, each moved once to the device in its final type. Everything else goes through open_clip. Both
look the same from outside.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.overrides import TorchFunctionMode

from embedding.errors import StartupError
from embedding.intake.text import TOKENIZER_ID, VOCABULARY_SIZE, Tokenizer
from embedding.model.checkpoint import Checkpoint, mismatch
from embedding.model.clip import CLIP
from embedding.model.config import CLIPConfig
from embedding.model.embedder import DTYPES, EmbeddingModel, ModelIdentity, Precision, TextTokenizer, Towers
from embedding.model.folder import (
    CONFIG_NAME,
    FolderConfig,
    WeightsFolder,
    read_config,
    reason_of,
    start_digest,
    weights_file,
)
from embedding.model.placing import place


if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from pathlib import Path

# Raise it when the same picture or text would give other pixels or tokens than before.
PREPROCESSING_VERSION = 2
_FINGERPRINT_DIGITS = 16
_UNBUILDABLE = (ValueError, TypeError, KeyError, ZeroDivisionError, RuntimeError)
_NO_MODEL = "describes no model that can be built"
# CPUs that multiply bfloat16 in hardware; elsewhere it is slower than fp32 and less exact.
_BF16_CAPABILITIES = ("amx_bf16", "avx512_bf16", "bf16")


class _Uninitialised(TorchFunctionMode):
    """Modules built inside are not initialised; on the meta device that imports torch._dynamo (3 s)."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return None
        return func(*args, **(kwargs or {}))


def load_model(
    folder: WeightsFolder,
    *,
    device: str,
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto",
    digest: Future[str] | None = None,
) -> EmbeddingModel:
    """Load the model of *folder* onto *device* ("cpu", "cuda:0").

    *digest* is that of the weights, from `start_digest`; without it, it is taken meanwhile.

    Raises StartupError where the device is missing or the folder does not hold a model that fits.
    """
    config, file = read_config(folder.path), weights_file(folder.path)
    _check_device(device)
    final = choose_precision(device, precision)
    digest = digest or start_digest(file)
    own = plain_config(config, folder.path)
    towers, tokenizer = _load(own, folder.path, config, device=device, precision=final)
    weights_sha256 = digest.result()
    identity = ModelIdentity(
        model_name=folder.model_name,
        pretrained=folder.pretrained,
        dim=config.embed_dim,
        image_size=config.preprocess.size,
        context_length=tokenizer.context_length,
        device=device,
        precision=final,
        fingerprint=fingerprint(config, weights_sha256=weights_sha256),
        weights_sha256=weights_sha256,
        architecture="own" if own else "open_clip",
    )
    return EmbeddingModel(
        identity=identity,
        folder=folder,
        preprocess=config.preprocess,
        tokenizer=tokenizer,
        towers=towers,
    )


def choose_precision(device: str, asked: Literal["auto", "fp32", "fp16", "bf16"]) -> Precision:
    """Return *asked*, or for auto: fp16 on CUDA, bf16 on a CPU that has it in hardware, else fp32."""
    if asked != "auto":
        return asked
    if device.startswith("cuda"):
        return "fp16"
    capabilities = torch.cpu.get_capabilities()
    return "bf16" if any(capabilities.get(name) for name in _BF16_CAPABILITIES) else "fp32"


def plain_config(config: FolderConfig, path: Path) -> CLIPConfig | None:
    """Return the config of our own towers, `None` if open_clip must serve it.

    Raises StartupError if its numbers cannot be built or its vocabulary is not CLIP's.
    """
    try:
        own = CLIPConfig.from_json(config.model_cfg)
    except _UNBUILDABLE as exc:
        raise StartupError(f"{path / CONFIG_NAME} {_NO_MODEL}: {reason_of(exc)}") from exc
    if own and own.text.vocab_size < VOCABULARY_SIZE:
        raise StartupError(
            f"{path / CONFIG_NAME} has a vocabulary of {own.text.vocab_size}; CLIP's is {VOCABULARY_SIZE}"
        )
    return own


def fingerprint(config: FolderConfig, *, weights_sha256: str) -> str:
    """Return 16 hex digits that say what makes a vector: config, preprocessing, weights and tokenizer."""
    made_of = {
        "model_cfg": config.model_cfg,
        "preprocess": asdict(config.preprocess),
        "preprocessing_version": PREPROCESSING_VERSION,
        "tokenizer": config.model_cfg["text_cfg"].get("hf_tokenizer_name") or TOKENIZER_ID,
        "weights_sha256": weights_sha256,
    }
    canonical = json.dumps(made_of, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:_FINGERPRINT_DIGITS]


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as exc:
        raise StartupError(f"device {device} is not usable ({reason_of(exc)}); check GPU_DEVICE") from exc


def _load(
    own: CLIPConfig | None, path: Path, config: FolderConfig, *, device: str, precision: Precision
) -> tuple[Towers, TextTokenizer]:
    if own is None:
        from embedding.model.fallback import load_open_clip  # noqa: PLC0415  (imports open_clip: 4.5 s)

        return load_open_clip(path, config, device=device, precision=precision)
    with ThreadPoolExecutor(1, "tokenizer") as meanwhile:
        tokenizer = meanwhile.submit(Tokenizer, own.text.context_length)
        towers = _own_towers(own, weights_file(path), device=device, dtype=DTYPES[precision])
        return towers, tokenizer.result()


def _own_towers(config: CLIPConfig, file: Path, *, device: str, dtype: torch.dtype) -> CLIP:
    try:
        with _Uninitialised(), torch.device("meta"):
            towers = CLIP(config)
    except _UNBUILDABLE as exc:
        raise StartupError(f"{file.parent / CONFIG_NAME} {_NO_MODEL}: {reason_of(exc)}") from exc
    checkpoint = Checkpoint(file)
    fault = mismatch(checkpoint.shapes, {name: tensor.shape for name, tensor in towers.state_dict().items()})
    if fault:
        raise StartupError(f"{file} does not fit its {CONFIG_NAME}: {fault}; use the config of these weights")
    try:
        place(towers, checkpoint, device=device, dtype=dtype)
    except torch.OutOfMemoryError as exc:
        raise StartupError(f"the model does not fit into the memory of {device}; use a larger one") from exc
    return towers.eval()
