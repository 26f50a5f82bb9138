"""What open_clip makes of the references' models, pictures and texts. Importing this imports open_clip."""

from __future__ import annotations

import gzip
import json
from itertools import islice
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from embedding.model.folder import GOLDEN_NAME
from embedding.model.golden import write_golden
from tests.model.references import TEXTS, picture, pictures


LINES = (
    1 + 49408 - 512 - 2
)  # the first is a comment; then a merge for every token that is neither byte nor mark


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


def vocabulary_lines():
    """Return the lines that open_clip's tokenizer reads of its vocabulary file."""
    file = Path(open_clip.__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return list(islice(lines, LINES))
