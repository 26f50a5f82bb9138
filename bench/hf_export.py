"""A folder in open_clip's hub format, written anew in the format of transformers' CLIPModel.

    python -m bench.hf_export FOLDER OUT

For servers that read only the latter: the numbers are the same, so the vectors are. What differs between the
formats: names, one matrix each for queries, keys and values instead of a fused one, and projections that are
linear layers (transposed). Weights become fp32 whatever the file's type, so that no reader has to guess.
The tokenizer's files come from the merges that the worker brings along; nothing is downloaded.

References: transformers, models/clip/convert_clip_original_pytorch_to_hf.py and configuration_clip.py.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from safetensors.torch import save_file

from embedding.intake.text import END, MERGES, START
from embedding.model.checkpoint import Checkpoint
from embedding.model.config import CLIPConfig, TowerConfig
from embedding.model.folder import read_config, weights_file


if TYPE_CHECKING:
    from torch import Tensor

    from embedding.intake.preprocess import Preprocess

_ROOT: Final = {
    "logit_scale": "logit_scale",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",  # transformers' spelling
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "visual.proj": "visual_projection.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
}
_TRANSPOSED: Final = frozenset({"visual.proj", "text_projection"})
_BLOCK: Final = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(\w+)\.(.+)")
_LAYER: Final = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn": "self_attn", "mlp": "mlp"}
_PART: Final = {"c_fc": "fc1", "c_proj": "fc2"}
_RESAMPLE: Final = {"bilinear": 2, "bicubic": 3}  # Pillow's numbers
_START_TEXT, _END_TEXT = "<|startoftext|>", "<|endoftext|>"


def export(folder: Path, out: Path) -> None:
    """Write the model of *folder* into the folder *out*: config, weights, preprocessing and tokenizer.

    Raises ValueError for what CLIPModel cannot express: other architectures and ways to fit a picture.
    """
    described = read_config(folder)
    config = CLIPConfig.from_json(described.model_cfg)
    if config is None:
        raise ValueError("the model is not a plain CLIP ViT; transformers' CLIPModel cannot hold it")
    preprocessor = _preprocessor_config(described.preprocess)
    checkpoint = Checkpoint(weights_file(folder))
    tensors = _renamed(checkpoint.read(checkpoint.shapes))
    out.mkdir(parents=True, exist_ok=True)
    _write_json(out / "preprocessor_config.json", preprocessor)
    _write_tokenizer(out, config.text.context_length)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    _write_json(out / "config.json", _model_config(config))


def _renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        block = _BLOCK.fullmatch(name)
        if block:
            renamed |= _of_block(block, tensor.float())
        else:
            renamed[_ROOT[name]] = (tensor.T if name in _TRANSPOSED else tensor).float().contiguous()
    return renamed


def _of_block(name: re.Match[str], tensor: Tensor) -> dict[str, Tensor]:
    visual, number, layer, rest = name.groups()
    tower = "vision_model" if visual else "text_model"
    prefix = f"{tower}.encoder.layers.{number}.{_LAYER[layer]}"
    if rest.startswith("in_proj_"):
        kind = rest.removeprefix("in_proj_")
        parts = zip("qkv", tensor.chunk(3), strict=True)
        return {f"{prefix}.{letter}_proj.{kind}": part.clone() for letter, part in parts}
    head, _, tail = rest.partition(".")
    return {f"{prefix}.{_PART.get(head, head)}{'.' if tail else ''}{tail}": tensor.contiguous()}


def _model_config(config: CLIPConfig) -> dict[str, Any]:
    vision, text = config.vision, config.text
    activation = "quick_gelu" if config.quick_gelu else "gelu"
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "torch_dtype": "float32",
        "projection_dim": config.embed_dim,
        "vision_config": {
            **_tower_config(vision, config.embed_dim, activation),
            "model_type": "clip_vision_model",
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
        },
        "text_config": {
            **_tower_config(text, config.embed_dim, activation),
            "model_type": "clip_text_model",
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.context_length,
            "bos_token_id": START,
            "eos_token_id": END,
            "pad_token_id": END,
        },
    }


def _tower_config(tower: TowerConfig, embed_dim: int, activation: str) -> dict[str, Any]:
    return {
        "hidden_size": tower.width,
        "intermediate_size": tower.mlp_width,
        "num_attention_heads": tower.heads,
        "num_hidden_layers": tower.layers,
        "projection_dim": embed_dim,
        "hidden_act": activation,
        "layer_norm_eps": 1e-5,
    }


def _preprocessor_config(preprocess: Preprocess) -> dict[str, Any]:
    if preprocess.resize_mode != "shortest":
        raise ValueError(f"resize mode {preprocess.resize_mode} has no counterpart in CLIPImageProcessor")
    return {
        "image_processor_type": "CLIPImageProcessor",
        "processor_class": "CLIPProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": preprocess.size},
        "resample": _RESAMPLE[preprocess.interpolation],
        "do_center_crop": True,
        "crop_size": {"height": preprocess.size, "width": preprocess.size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": preprocess.mean,
        "image_std": preprocess.std,
    }


def _write_tokenizer(out: Path, context_length: int) -> None:
    merges, tokens = _tokens()
    special = {"bos_token": _START_TEXT, "eos_token": _END_TEXT, "pad_token": _END_TEXT}
    special["unk_token"] = _END_TEXT
    tokenizer = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": context_length,
        "do_lower_case": True,
        **special,
    }
    (out / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    _write_json(out / "vocab.json", {token: number for number, token in enumerate(tokens)})
    _write_json(out / "tokenizer_config.json", tokenizer)
    _write_json(out / "special_tokens_map.json", special)


def _tokens() -> tuple[list[str], list[str]]:
    """Return the merges, `left right` each, lowest first; and every token in the order of its id.

    The order: bytes, bytes that end a word, merges, start and end.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)]
    # A printable byte is written as its Latin-1 character, and the n-th other byte as chr(256 + n).
    characters = [*map(chr, printable), *map(chr, range(256, 512 - len(printable)))]
    tokens = [*characters, *(f"{character}</w>" for character in characters)]
    merges = []
    for left, right in np.load(MERGES).tolist():
        merges.append(f"{tokens[left]} {tokens[right]}")
        tokens.append(tokens[left] + tokens[right])
    return merges, [*tokens, _START_TEXT, _END_TEXT]


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(f"{json.dumps(content, indent=2, ensure_ascii=False)}\n", encoding="utf-8")


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.hf_export", description=__doc__)
    parser.add_argument("folder", type=Path, help="a folder in open_clip's hub format")
    parser.add_argument("out", type=Path, help="the folder to write")
    options = parser.parse_args()
    with torch.inference_mode():
        export(options.folder, options.out)


if __name__ == "__main__":
    _main()
