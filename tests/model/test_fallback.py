"""Architectures that are not plain CLIP ViTs run through open_clip behind the same interface."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from embedding.errors import StartupError, TextTooLong
from embedding.intake.text import END, START
from embedding.model.golden import check_golden, write_golden
from embedding.model.loader import load_model
from tests.model.folders import NO_OPEN_CLIP, TINY, write_config, write_folder
from tests.model.references import pictures


open_clip = pytest.importorskip("open_clip", reason=NO_OPEN_CLIP)

VISION, TEXT = TINY["vision_cfg"], TINY["text_cfg"]
RESNET = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 16},
    "text_cfg": TEXT,
}
# SigLIP's shape: pooled patches, a text tower that reads its padding, a bias in the loss.
SIGLIP = {
    "embed_dim": 16,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {**VISION, "no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True},
    "text_cfg": {**TEXT, "no_causal_mask": True, "pool_type": "last", "proj_bias": True},
}
COCA = {
    "embed_dim": 32,
    "multimodal_cfg": {"width": 32, "context_length": 76, "heads": 2, "layers": 1, "vocab_size": 49408},
    "vision_cfg": {**VISION, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
    "text_cfg": {**TEXT, "context_length": 76, "embed_cls": True, "output_tokens": True},
    "custom_text": True,
}
TEXTS = ["a red circle", "", "naïve café 字", "word " * 100]


@pytest.fixture(scope="module", params=[RESNET, SIGLIP, COCA], ids=["ResNet", "SigLIP", "CoCa"])
def folder(request, tmp_path_factory):
    """A folder of each small architecture."""
    return write_folder(tmp_path_factory.mktemp("fallback") / "folder", request.param)


def embed(model):
    """Return the features of three pictures and of TEXTS."""
    tokens = [model.tokenizer.tokenize(text, truncate=True) for text in TEXTS]
    return model.embed_images(pictures(model.identity.image_size)), model.embed_texts(tokens)


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 0.99999), ("bf16", 0.9995)])
def test_parity(folder, precision, bound):
    """Features are those of open_clip in fp32, neither normalised nor moved by our padding."""
    reference = open_clip.create_model(f"local-dir:{folder.path}").eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder.path}")
    model = load_model(folder, device="cpu", precision=precision)
    with torch.inference_mode():
        exact = load_model(folder, device="cpu", precision="fp32")
        pixels = exact.normalise(pictures(model.identity.image_size))
        images = reference.encode_image(pixels, normalize=False).numpy()
        texts = reference.encode_text(tokenizer(TEXTS), normalize=False).numpy()

    for ours, theirs in zip(embed(model), (images, texts), strict=True):
        lengths = np.linalg.norm(ours, axis=1), np.linalg.norm(theirs, axis=1)
        assert ((ours * theirs).sum(1) / (lengths[0] * lengths[1])).min() >= bound
        np.testing.assert_allclose(*lengths, rtol=0.02)


def test_identity(folder):
    """The identity says that open_clip serves it."""
    identity = load_model(folder, device="cpu", precision="fp32").identity

    assert identity.architecture == "open_clip"
    assert identity.dim == embed(load_model(folder, device="cpu", precision="fp32"))[0].shape[1]


def test_golden(folder):
    """Golden vectors work for it as for our own towers."""
    write_golden(folder.path)

    assert check_golden(load_model(folder, device="cpu", precision="fp32")) >= 0.99999


def test_tokens_fill_the_context(folder):
    """Tokens come padded to the whole context, and are counted and refused as elsewhere."""
    tokenizer = load_model(folder, device="cpu", precision="fp32").tokenizer

    tokens = tokenizer.tokenize("dog " * 3, truncate=False)

    assert (tokens.ids[0], tokens.ids[4]) == (START, END)
    assert len(tokens.ids) == tokenizer.context_length
    assert tokens.count == 5
    with pytest.raises(TextTooLong):
        tokenizer.tokenize("dog " * 76, truncate=False)


def test_hostile_text(folder):
    """A text that would hold open_clip's own tokenizer for minutes takes no longer than elsewhere."""
    tokenizer = load_model(folder, device="cpu", precision="fp32").tokenizer
    started = time.perf_counter()

    tokenizer.tokenize("a" * 100_000, truncate=True)

    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    "text_cfg",
    [
        {**TEXT, "hf_tokenizer_name": "timm/ViT-B-16-SigLIP"},
        {**TEXT, "tokenizer_kwargs": {"clean": "canonicalize"}},
        {**TEXT, "no_such_option": True},
        {**TEXT, "layers": 3, "mlp_ratio": 2.0},
    ],
    ids=["no tokenizer files", "other cleaning", "unknown option", "other weights"],
)
def test_what_open_clip_cannot_load(tmp_path, text_cfg):
    """What open_clip refuses stops the start with one line that holds its reason."""
    folder = write_folder(tmp_path, SIGLIP)
    write_config(tmp_path, {**SIGLIP, "text_cfg": {**SIGLIP["text_cfg"], **text_cfg}})

    with pytest.raises(StartupError, match=r"^open_clip cannot load .*: [^\n]+$"):
        load_model(folder, device="cpu", precision="fp32")
