"""What open_clip makes of the references' models, pictures and texts. Importing this imports open_clip."""

from __future__ import annotations

import json

import numpy as np
import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from embedding.model.folder import GOLDEN_NAME
from embedding.model.golden import write_golden
from tests.model.references import TEXTS, picture, pictures


@torch.inference_mode()
def features(path):
    """Return the features of the pictures and of TEXTS, by open_clip's transform, tokens and towers alone."""
    return features_of(open_clip.create_model(f"local-dir:{path}", precision="fp32").eval())


@torch.inference_mode()
def features_of(model):
    """Return the features of the pictures and of TEXTS that *model* gives."""
    config = PreprocessCfg(**model.visual.preprocess_cfg)
    transform = image_transform_v2(config, is_train=False)
    side = config.size if isinstance(config.size, int) else config.size[0]
    pixels = torch.stack([transform(Image.fromarray(each)) for each in pictures(side)])
    return model.encode_image(pixels).numpy(), model.encode_text(open_clip.tokenize(TEXTS)).numpy()


def golden(path):
    """Return the golden vectors of the folder *path*."""
    write_golden(path)
    return np.array(json.loads((path / GOLDEN_NAME).read_text())["vectors"])


def normalised():
    """Return one number for each square of the pictures after open_clip's transform, (3, 3, 4, 4)."""
    transform = image_transform_v2(PreprocessCfg(), is_train=False)
    pixels = np.stack([transform(Image.fromarray(each)) for each in pictures(224)])
    return pixels[:, :, 28::56, 28::56]


def levels(width, height, side, interpolation, resize_mode):
    """Return what open_clip's transform makes of the picture of *width* by *height*, (side, side, 3)."""
    config = PreprocessCfg(
        size=side, interpolation=interpolation, resize_mode=resize_mode, mean=(0, 0, 0), std=(1, 1, 1)
    )
    pixels = image_transform_v2(config, is_train=False)(picture(width, height))
    return (pixels * 255).round().byte().permute(1, 2, 0).numpy()


def tokens(texts):
    """Return open_clip's tokens of *texts*, without padding."""
    return [[token for token in row if token] for row in open_clip.tokenize(texts).tolist()]


def merges():
    """Return the ids that its tokenizer merges, (48894, 2) uint16, lowest merge first."""
    tokenizer = open_clip.tokenizer.SimpleTokenizer()
    pairs = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.get)
    return np.array([[tokenizer.encoder[part] for part in pair] for pair in pairs], dtype=np.uint16)
