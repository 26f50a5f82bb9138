"""What a weights folder says of itself: `open_clip_config.json`, read and checked.

`CLIPConfig.from_json` accepts exactly the plain CLIP ViT family that `clip.py` implements, with the
defaults of open_clip's CLIPVisionCfg and CLIPTextCfg. Any other key means another architecture, which
open_clip itself must serve: `None` is returned and `fallback.py` takes over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


VISION_KEYS = frozenset({"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio"})
TEXT_KEYS = frozenset({"context_length", "vocab_size", "width", "heads", "layers"})
ROOT_KEYS = frozenset({"embed_dim", "quick_gelu", "vision_cfg", "text_cfg", "custom_text"})


@dataclass(frozen=True, slots=True)
class TowerConfig:
    """What both transformers share."""

    width: int
    layers: int
    heads: int
    mlp_width: int

    def __post_init__(self) -> None:
        if min(self.width, self.layers, self.heads, self.mlp_width) < 1 or self.width % self.heads:
            msg = f"a tower of width {self.width}, {self.layers} layers, {self.heads} heads cannot be built"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class VisionConfig(TowerConfig):
    """The vision tower: a square image of *image_size* pixels cut into patches of *patch_size*."""

    image_size: int
    patch_size: int

    @property
    def positions(self) -> int:
        """How many positions the tower reads: one per patch, and the class token."""
        return (self.image_size // self.patch_size) ** 2 + 1


@dataclass(frozen=True, slots=True)
class TextConfig(TowerConfig):
    """The text tower: up to *context_length* tokens of a vocabulary of *vocab_size*."""

    context_length: int
    vocab_size: int


@dataclass(frozen=True, slots=True)
class CLIPConfig:
    """A plain CLIP ViT."""

    embed_dim: int
    quick_gelu: bool
    vision: VisionConfig
    text: TextConfig

    @classmethod
    def from_json(cls, model_cfg: dict[str, Any]) -> CLIPConfig | None:
        """Read `model_cfg` of an `open_clip_config.json`; `None` if it is not a plain CLIP ViT.

        Raises ValueError, TypeError or KeyError where the family is right but the numbers are not.
        """
        vision, text = model_cfg["vision_cfg"], model_cfg["text_cfg"]
        if (
            isinstance(vision.get("layers"), list)
            or not set(model_cfg) <= ROOT_KEYS
            or not set(vision) <= VISION_KEYS
            or not set(text) <= TEXT_KEYS
        ):
            return None
        return cls(
            embed_dim=model_cfg["embed_dim"],
            quick_gelu=bool(model_cfg.get("quick_gelu", False)),
            vision=_vision(vision),
            text=_text(text),
        )


def _vision(cfg: dict[str, Any]) -> VisionConfig:
    width = cfg.get("width", 768)
    return VisionConfig(
        width=width,
        layers=cfg.get("layers", 12),
        heads=width // cfg.get("head_width", 64),
        mlp_width=int(width * cfg.get("mlp_ratio", 4.0)),
        image_size=cfg.get("image_size", 224),
        patch_size=cfg.get("patch_size", 16),
    )


def _text(cfg: dict[str, Any]) -> TextConfig:
    width = cfg.get("width", 512)
    return TextConfig(
        width=width,
        layers=cfg.get("layers", 12),
        heads=cfg.get("heads", 8),
        mlp_width=width * 4,
        context_length=cfg.get("context_length", 77),
        vocab_size=cfg.get("vocab_size", 49408),
    )
