"""What a folder of weights must hold: open_clip's hub format, read and checked before anything is built.

`open_clip_config.json` says what the model is and how its pictures are prepared; one weights file, best
`open_clip_model.safetensors`, lies beside it. `golden.json` is optional. Every fault is a StartupError of
one line that names the path and what to do.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from typing import TYPE_CHECKING, Any

from embedding.errors import StartupError
from embedding.intake.preprocess import Preprocess


if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

CONFIG_NAME = "open_clip_config.json"
WEIGHTS_NAME = "open_clip_model.safetensors"
GOLDEN_NAME = "golden.json"
# The order of open_clip's factory. Files of other names may be transformers' and are left alone.
WEIGHTS_NAMES = (
    WEIGHTS_NAME,
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
)
_REASON_CHARS = 200
# What to set instead of the transformers repositories that people try first.
_OPENAI_NAMES = {
    "clip-vit-base-patch32": "ViT-B-32",
    "clip-vit-base-patch16": "ViT-B-16",
    "clip-vit-large-patch14": "ViT-L-14",
    "clip-vit-large-patch14-336": "ViT-L-14-336",
}


@dataclass(frozen=True, slots=True)
class WeightsFolder:
    """Where the weights lie, what they are called, and which source they came from."""

    path: Path
    model_name: str
    pretrained: str
    origin: str


@dataclass(frozen=True, slots=True)
class FolderConfig:
    """`open_clip_config.json`: the model, its preprocessing, and what made the folder, if it says so."""

    model_cfg: dict[str, Any]
    preprocess: Preprocess
    source: dict[str, str]

    @property
    def embed_dim(self) -> int:
        """The dimension of the shared space."""
        dim: int = self.model_cfg["embed_dim"]
        return dim


def read_config(path: Path) -> FolderConfig:
    """Read the config of the folder *path*; the size of its pictures is the vision tower's, as in open_clip.

    Raises StartupError if it is missing or not of its form.
    """
    file = path / CONFIG_NAME
    if not exists(path):
        raise StartupError(f"{path} does not exist; set MODEL_PATH to a folder that holds {CONFIG_NAME}")
    if not exists(file):
        raise StartupError(f"{path} has no {CONFIG_NAME}; {_instead(path)}")
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise StartupError(f"cannot read {file}: {exc.strerror}; check its permissions") from exc
    except ValueError as exc:
        raise StartupError(f"{file} is not JSON ({exc}); prepare the folder again") from exc
    fault = _fault_of(document)
    if fault:
        raise StartupError(f"{file} {fault}; it must be as open_clip writes it")
    size = document["model_cfg"]["vision_cfg"].get("image_size", 224)
    return FolderConfig(
        model_cfg=document["model_cfg"],
        preprocess=Preprocess.from_config({**document.get("preprocess_cfg", {}), "size": size}),
        source=document.get("source", {}),
    )


def weights_file(path: Path) -> Path:
    """Return the weights file of the folder *path*. Raises StartupError if there is none."""
    for name in WEIGHTS_NAMES:
        if exists(path / name):
            return path / name
    raise StartupError(f"{path} has no weights file; put {WEIGHTS_NAME} there or prepare the folder again")


def holds_model(path: Path) -> bool:
    """Whether *path* is a folder with a config and weights; their content is not judged."""
    return exists(path / CONFIG_NAME) and any(exists(path / name) for name in WEIGHTS_NAMES)


def exists(path: Path) -> bool:
    """Whether *path* exists. Raises StartupError where that cannot be told for lack of permission."""
    try:
        return path.exists()
    except OSError as exc:
        raise StartupError(f"cannot read {path}: {exc.strerror}; check its permissions") from exc


def file_sha256(file: Path) -> str:
    """Return the SHA-256 of *file* in hex. Raises StartupError if it cannot be read."""
    try:
        with file.open("rb") as content, mmap(content.fileno(), 0, access=ACCESS_READ) as mapped:
            return hashlib.sha256(mapped).hexdigest()  # one call, so that it never waits for the interpreter
    except ValueError:  # nothing can be mapped of an empty file
        return hashlib.sha256().hexdigest()
    except OSError as exc:
        raise StartupError(f"cannot read {file}: {exc.strerror or exc}; check its permissions") from exc


def start_digest(file: Path) -> Future[str]:
    """Start taking `file_sha256` of *file* in a thread of its own; it does not hold the interpreter."""
    thread = ThreadPoolExecutor(1, "digest")
    digest = thread.submit(file_sha256, file)
    thread.shutdown(wait=False)
    return digest


def reason_of(exc: BaseException) -> str:
    """Return the message of a foreign exception in one short line."""
    return " ".join(str(exc).split())[:_REASON_CHARS] or type(exc).__name__


def _instead(path: Path) -> str:
    if not exists(path / "config.json"):
        return "it must be a folder in open_clip's hub format, as 'python -m embedding prepare' makes it"
    known = next((name for repo, name in _OPENAI_NAMES.items() if f"{repo}/" in f"{path}/"), "ViT-B-32")
    return (
        "it is in transformers' format, which this worker does not read; "
        f"set CLIP_MODEL_NAME={known} and CLIP_PRETRAINED=openai, or another open_clip model"
    )


def _fault_of(document: Any) -> str | None:
    if not isinstance(document, dict) or not isinstance(document.get("model_cfg"), dict):
        return "has no model_cfg object"
    model_cfg = document["model_cfg"]
    for key in ("vision_cfg", "text_cfg"):
        if not isinstance(model_cfg.get(key), dict):
            return f"has no model_cfg.{key} object"
    if not isinstance(model_cfg.get("embed_dim"), int) or model_cfg["embed_dim"] < 1:
        return "has no model_cfg.embed_dim above 0"
    for key in ("preprocess_cfg", "source"):
        if not isinstance(document.get(key, {}), dict):
            return f"has a {key} that is not an object"
    return None
