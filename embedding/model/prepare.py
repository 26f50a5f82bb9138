"""Make a folder of weights that starts fast: open_clip loads whatever it can read, and writes it once.

The folder is in open_clip's hub format, so open_clip and this worker both serve it: the config, the weights
as fp16 safetensors, and golden vectors computed by open_clip from exactly these rounded weights. The
activation follows the weights: a tag trained with QuickGELU gets `quick_gelu: true` even under a plain
model name, where open_clip 3 only warns. The folder appears at once and whole, or not at all.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import open_clip
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from embedding.errors import StartupError
from embedding.model.fallback import FAULTS
from embedding.model.folder import (
    CONFIG_NAME,
    GOLDEN_NAME,
    WEIGHTS_NAME,
    WeightsFolder,
    exists,
    file_sha256,
    holds_model,
    read_config,
    reason_of,
    weights_file,
)
from embedding.model.golden import read_golden, write_golden
from embedding.model.loader import fingerprint
from embedding.model.registry import TAG_PREPROCESS, check_name, find_tag
from embedding.model.weights import HUB_PREFIX


if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

RANDOM = "random"
_MEGABYTE = 1_000_000
# mkdtemp and safetensors make what only its owner can read, and the worker may be another user.
_FOLDER_MODE = 0o755
_FILE_MODE = 0o644


def prepare(
    model_name: str,
    pretrained: str,
    out: Path,
    *,
    precision: Literal["fp16", "fp32"] = "fp16",
    weights: Path | None = None,
    say: Callable[[str], None] = print,
) -> WeightsFolder:
    """Make the folder *out* for *model_name* and *pretrained*; where it is there already, do nothing.

    *weights* is a checkpoint on this machine, in any format that open_clip reads, instead of a download.
    The tag `random` gives seeded random weights, for tests and benchmarks only. Raises StartupError.
    """
    done = WeightsFolder(out, model_name, pretrained, "prepared")
    source = {"model_name": model_name, "pretrained": pretrained, "precision": precision}
    if weights:
        source["checkpoint_sha256"] = file_sha256(weights)
    if _is_done(out, source):
        say(f"{out} is prepared already")
    else:
        say(f"loading {model_name} {pretrained} with open_clip {open_clip.__version__}")
        model, model_cfg = _create(model_name, pretrained, weights)
        say(f"writing {out} in {precision}, with golden vectors")
        try:
            _write(out, model, model_cfg, source)
        except (OSError, SafetensorError) as exc:
            if exists(out) and _is_done(out, source):  # another process was faster
                return done
            raise StartupError(f"cannot write {out}: {reason_of(exc)}; check space and permissions") from exc
    file = weights_file(out)
    digits = fingerprint(read_config(out), weights_sha256=file_sha256(file))
    say(f"{file.stat().st_size / _MEGABYTE:.0f} MB of weights, fingerprint {digits}")
    return done


def _is_done(out: Path, source: dict[str, str]) -> bool:
    """Whether *out* holds exactly this model, undamaged. Raises StartupError if it holds anything else."""
    if not exists(out) or (out.is_dir() and not any(out.iterdir())):
        return False
    if not holds_model(out) or read_config(out).source != source:
        raise StartupError(f"{out} holds something else; remove it or choose another folder")
    golden = read_golden(out / GOLDEN_NAME, dim=read_config(out).embed_dim)
    if golden is None or golden["weights_sha256"] != file_sha256(weights_file(out)):
        raise StartupError(f"{out} is damaged: its weights are not those of its {GOLDEN_NAME}; remove it")
    return True


def _create(model_name: str, pretrained: str, weights: Path | None) -> tuple[nn.Module, dict[str, Any]]:
    """Return open_clip's model on the CPU in fp32, and its config with the activation of the weights."""
    options: dict[str, Any] = {"require_pretrained": True}
    if not model_name.startswith(HUB_PREFIX):
        model_name = model_name.replace("/", "-")
        if model_name not in open_clip.list_models():
            check_name(model_name)
        options |= _options(model_name, pretrained, weights)
    try:
        torch.manual_seed(0)
        model = open_clip.create_model(model_name, **options).eval()
        model_cfg = open_clip.get_model_config(model_name)
    except FAULTS as exc:
        raise StartupError(f"open_clip cannot load {model_name} {pretrained}: {reason_of(exc)}") from exc
    if pretrained == RANDOM:
        _perturb(model)
    if options.get("force_quick_gelu"):
        model_cfg["quick_gelu"] = True
    return model, model_cfg


def _options(model_name: str, pretrained: str, weights: Path | None) -> dict[str, Any]:
    if pretrained == RANDOM:
        return {"require_pretrained": False, "pretrained_text": False}
    if not weights:
        return {"pretrained": pretrained, "force_quick_gelu": find_tag(model_name, pretrained).quick_gelu}
    tag = open_clip.get_pretrained_cfg(model_name, pretrained) if pretrained else {}
    return {
        "pretrained": str(weights),
        "force_quick_gelu": bool(tag.get("quick_gelu")),
        "force_preprocess_cfg": {key: tag[key] for key in TAG_PREPROCESS if key in tag},
    }


def _perturb(model: nn.Module) -> None:
    """Move norms and biases off 1 and 0, where a fresh model hides what it does with them."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)


def _write(out: Path, model: Any, model_cfg: dict[str, Any], source: dict[str, str]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        preprocess_cfg = {key: model.visual.preprocess_cfg[key] for key in TAG_PREPROCESS}
        config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg, "source": source}
        (partial / CONFIG_NAME).write_text(f"{json.dumps(config, indent=2)}\n", encoding="utf-8")
        save_file(_rounded(model, source["precision"]), partial / WEIGHTS_NAME)
        _save_tokenizer(source["model_name"], model_cfg, partial)
        write_golden(partial)
        for file in partial.iterdir():
            file.chmod(_FILE_MODE)
        partial.chmod(_FOLDER_MODE)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _rounded(model: nn.Module, precision: str) -> dict[str, Tensor]:
    dtype = torch.float16 if precision == "fp16" else torch.float32
    tensors = {}
    for name, tensor in model.state_dict().items():
        final = dtype if tensor.is_floating_point() else tensor.dtype
        tensors[name] = tensor.to(final, copy=True).contiguous()
        if not tensors[name].isfinite().all():
            raise StartupError(f"{name} does not fit fp16; prepare with --precision fp32")
    return tensors


def _save_tokenizer(model_name: str, model_cfg: dict[str, Any], folder: Path) -> None:
    if not model_cfg["text_cfg"].get("hf_tokenizer_name"):
        return
    try:
        open_clip.get_tokenizer(model_name).save_pretrained(folder)
    except FAULTS as exc:
        raise StartupError(f"the tokenizer of {model_name} cannot be had: {reason_of(exc)}") from exc
