"""Trains the demo model: open_clip's own CLIP on drawings and their captions, on a CPU, from one seed.

Training sees 26 of the context's 77 positions: attention is causal, so the others cannot change a vector.
The same seed, machine and library versions give the same weights, bit for bit.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from scripts.demo_model.batches import (
    TRAINED_TOKENS,
    UNKNOWN_TOKEN,
    Batch,
    Lesson,
    attribute_captions,
    batches,
    padded,
    render,
    vocabulary,
)
from scripts.demo_model.draw import (
    Combination,
    caption,
    chance,
    combinations,
    held_out_combinations,
    random_scene,
)


if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch.optim import Optimizer

MODEL_CONFIG: Final[dict[str, Any]] = {
    "embed_dim": 512,
    "vision_cfg": {"image_size": 64, "patch_size": 16, "layers": 4, "width": 192, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
PREPROCESS_CONFIG: Final[dict[str, Any]] = {
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
CONFIG_NAME: Final = "open_clip_config.json"
WEIGHTS_NAME: Final = "open_clip_model.safetensors"
_MAX_LOGIT_SCALE: Final = math.log(100)
_MAX_GRADIENT_NORM: Final = 1.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that the weights depend on, besides the machine and its versions of torch and Pillow."""

    seed: int = 0
    steps: int = 3000
    batch: int = 128
    drawings: int = 40_000
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    warmup_steps: int = 100
    report_every_steps: int = 100


def train(recipe: Recipe) -> CLIP:
    """Return the trained model: eval mode, float32, full context. Prints its progress."""
    torch.manual_seed(recipe.seed)
    held_out = held_out_combinations(recipe.seed)
    known = [combination for combination in combinations() if combination not in held_out]
    print(f"drawing {recipe.drawings} pictures of {len(known)} combinations", flush=True)
    rng = chance("training", recipe.seed)
    scenes = [random_scene(rng, known[i % len(known)]) for i in range(recipe.drawings)]
    stream = batches(scenes, render(scenes, rng), recipe.batch, rng, _lessons(recipe))
    model = new_model()
    _fit(model, stream, recipe, _Exam(held_out, recipe.seed))
    return with_full_context(model)


def _lessons(recipe: Recipe) -> tuple[Lesson, Lesson]:
    """Return the order of learning: large shapes first, then single ones, or shapes are never learnt."""
    return (
        Lesson(recipe.steps * 4 // 30, lambda scene: scene.count == 1 and scene.size == "large"),
        Lesson(recipe.steps * 8 // 30, lambda scene: scene.count == 1 and scene.size != "small"),
    )


def new_model() -> CLIP:
    """Return an untrained model of TRAINED_TOKENS positions, zero for every word that no caption uses."""
    model = _build(TRAINED_TOKENS)
    unused = torch.ones(model.vocab_size, dtype=torch.bool)
    unused[sorted(vocabulary())] = False
    with torch.no_grad():
        model.token_embedding.weight[unused] = 0
    return model


def with_full_context(model: CLIP) -> CLIP:
    """Return the same model with MODEL_CONFIG's context, in eval mode; the added positions are zero."""
    weights = model.state_dict()
    full = _build(MODEL_CONFIG["text_cfg"]["context_length"])
    positions = torch.zeros_like(full.positional_embedding)
    positions[:TRAINED_TOKENS] = weights["positional_embedding"]
    full.load_state_dict(weights | {"positional_embedding": positions})
    return full.eval()


def _build(context_length: int) -> CLIP:
    text = CLIPTextCfg(**MODEL_CONFIG["text_cfg"] | {"context_length": context_length})
    return CLIP(MODEL_CONFIG["embed_dim"], CLIPVisionCfg(**MODEL_CONFIG["vision_cfg"]), text)


def _fit(model: CLIP, stream: Iterator[Batch], recipe: Recipe, exam: _Exam) -> None:
    optimizer = _optimizer(model, recipe)
    attributes = [padded(captions) for captions in attribute_captions()]
    started_s = time.monotonic()
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(step, recipe)
        loss = _step(model, next(stream), attributes, optimizer)
        if (step + 1) % recipe.report_every_steps == 0 or step + 1 == recipe.steps:
            to_caption, to_picture = exam.top1(model)
            left_s = (time.monotonic() - started_s) * (recipe.steps / (step + 1) - 1)
            print(
                f"step {step + 1}/{recipe.steps}  loss {loss:.3f}  held out: {to_caption:.0%} of pictures, "
                f"{to_picture:.0%} of captions  {left_s / 60:.1f} min left",
                flush=True,
            )


def _optimizer(model: CLIP, recipe: Recipe) -> Optimizer:
    """Return AdamW that decays matrices only."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, betas=(0.9, 0.98), fused=True)


def _schedule(step: int, recipe: Recipe) -> float:
    """Return the fraction of the learning rate: a linear rise, then half a cosine down to zero."""
    return min(1.0, (step + 1) / recipe.warmup_steps) * (1 + math.cos(math.pi * step / recipe.steps)) / 2


def _step(model: CLIP, batch: Batch, attributes: list[Tensor], optimizer: Optimizer) -> float:
    """Take one step and return its contrastive loss."""
    contrastive, attribute = _losses(model, batch, attributes)
    optimizer.zero_grad()
    (contrastive + attribute).backward()
    clip_grad_norm_(model.parameters(), _MAX_GRADIENT_NORM)
    optimizer.step()
    with torch.no_grad():
        model.token_embedding.weight[UNKNOWN_TOKEN] = 0
        model.logit_scale.clamp_(0, _MAX_LOGIT_SCALE)
    return contrastive.item()


def _losses(model: CLIP, batch: Batch, attributes: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return CLIP's symmetric contrastive loss, and that of naming each attribute by its own caption.

    A caption that is true of another picture of the batch is not held against it.
    """
    images = model.encode_image(normalised(batch.pixels), normalize=True)
    tokens = torch.cat([batch.tokens, *attributes])
    texts = model.encode_text(tokens, normalize=True)
    logits = model.logit_scale.exp() * images @ texts.T
    full, *named = logits.split([len(batch.tokens), *map(len, attributes)], dim=1)
    own = torch.arange(len(full))
    also_true = batch.truth & (own[:, None] != own)
    full = full.masked_fill(also_true, float("-inf"))
    contrastive = (functional.cross_entropy(full, own) + functional.cross_entropy(full.T, own)) / 2
    attribute = sum(
        (functional.cross_entropy(part, batch.attributes[:, i]) for i, part in enumerate(named)),
        start=torch.zeros(()),
    )
    return contrastive, attribute


def normalised(pixels: Tensor) -> Tensor:
    """Return uint8 pixels as the image tower takes them: float32, by PREPROCESS_CONFIG's mean and std."""
    mean, std = (torch.tensor(PREPROCESS_CONFIG[key]).view(3, 1, 1) for key in ("mean", "std"))
    return (pixels / 255 - mean) / std


class _Exam:
    """One drawing of every combination withheld from training, with its full caption."""

    def __init__(self, held_out: tuple[Combination, ...], seed: int) -> None:
        rng = chance("exam", seed)
        scenes = [random_scene(rng, combination) for combination in held_out]
        self._pixels = normalised(render(scenes, rng))
        self._tokens = padded([caption(scene) for scene in scenes])

    @torch.no_grad()
    def top1(self, model: CLIP) -> tuple[float, float]:
        """Return the shares of pictures that rank their caption first, and of captions their picture."""
        images = model.encode_image(self._pixels, normalize=True)
        texts = model.encode_text(self._tokens, normalize=True)
        similarity = images @ texts.T
        own = torch.arange(len(similarity))
        to_caption, to_picture = ((similarity.argmax(dim=d) == own).float().mean().item() for d in (1, 0))
        return to_caption, to_picture


def save_folder(model: CLIP, folder: Path, recipe: Recipe) -> None:
    """Write the model in open_clip's hub format, float16, each file whole or not at all."""
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    origin = {"format": "pt", "seed": str(recipe.seed), "steps": str(recipe.steps)}
    config = {
        "model_cfg": MODEL_CONFIG,
        "preprocess_cfg": PREPROCESS_CONFIG,
        "source": {"model_name": "demo", "pretrained": "drawings"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / WEIGHTS_NAME, save(weights, metadata=origin))
    write_whole(folder / CONFIG_NAME, (json.dumps(config, indent=2) + "\n").encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that an interruption leaves either the old one or the new one."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
