"""open_clip's names and tags, looked up without paying for its import (4.5 s of torchvision and timm).

Model names are the file names of its `model_configs`; the table of tags is its module `pretrained`, which
needs none of the rest of the package. A tag says which repository of the Hugging Face Hub holds the
weights, and with which activation and preprocessing they were trained.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from embedding.errors import StartupError
from embedding.intake.preprocess import Preprocess


if TYPE_CHECKING:
    from embedding.model.folder import FolderConfig

# What open_clip's list, and its hub format, say of preprocessing.
TAG_PREPROCESS = ("mean", "std", "interpolation", "resize_mode")

_ALIAS = "_open_clip_without_init"


@dataclass(frozen=True, slots=True)
class Tag:
    """One entry of open_clip's list.

    *repo* is empty where the hub has none in open_clip's format; *place* is the repository that holds the
    weights in any, and the file there, which is empty for the usual one.
    """

    repo: str
    place: tuple[str, str]
    quick_gelu: bool
    preprocess_cfg: dict[str, Any]

    def agrees_with(self, config: FolderConfig) -> bool:
        """Whether a hub repository's own *config* says what open_clip's list says of these weights."""
        listed = Preprocess.from_config({**self.preprocess_cfg, "size": config.preprocess.size})
        quick_gelu = bool(config.model_cfg.get("quick_gelu", False))
        return (quick_gelu, config.preprocess) == (self.quick_gelu, listed)


def model_names() -> list[str]:
    """Return every model name that open_clip knows."""
    return sorted(file.stem for file in (_package() / "model_configs").glob("*.json"))


def check_name(model_name: str) -> None:
    """Raise StartupError, with close matches, if open_clip does not know *model_name*."""
    names = model_names()
    if model_name not in names:
        close = difflib.get_close_matches(model_name, names, n=3) or ["ViT-B-32", "ViT-L-14"]
        raise StartupError(f"{model_name} is not a model of open_clip; did you mean {', '.join(close)}?")


def text_cfg_of(model_name: str) -> dict[str, Any]:
    """Return what open_clip's config of *model_name*, one of its names, says of the text tower."""
    config = json.loads((_package() / "model_configs" / f"{model_name}.json").read_text(encoding="utf-8"))
    return dict(config["text_cfg"])


def find_tag(model_name: str, pretrained: str) -> Tag:
    """Return what open_clip's list says of *pretrained* for *model_name*.

    Raises StartupError with close matches for an unknown name, and with the known tags for an unknown tag.
    """
    check_name(model_name)
    table = _pretrained_module()
    entry = table.get_pretrained_cfg(model_name, pretrained) if pretrained else None
    if not entry:
        tags = ", ".join(table.list_pretrained_tags_by_model(model_name)) or "none; prepare it with --weights"
        asked = f"has no tag {pretrained}" if pretrained else "needs a tag (CLIP_PRETRAINED, --pretrained)"
        raise StartupError(f"model {model_name} {asked}; its tags: {tags}")
    repo, _, filename = entry.get("hf_hub", "").rpartition("/")
    return Tag(
        repo="" if filename else repo,
        place=(repo, filename),
        quick_gelu=bool(entry.get("quick_gelu", False)),
        preprocess_cfg={key: entry[key] for key in TAG_PREPROCESS if key in entry},
    )


def _package() -> Path:
    spec = importlib.util.find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise StartupError("open_clip is not installed: pip install open_clip_torch")
    return Path(spec.submodule_search_locations[0])


def _pretrained_module() -> ModuleType:
    """Import open_clip's module `pretrained` under a package of our own whose `__init__` is empty."""
    if _ALIAS not in sys.modules:
        package = ModuleType(_ALIAS)
        package.__path__ = [str(_package())]
        sys.modules[_ALIAS] = package
    return importlib.import_module(f"{_ALIAS}.pretrained")
