"""The export to transformers' format keeps the model: its weights, its preprocessing and its tokens."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from bench.hf_export import export
from tests.model.folders import OPENAI_PREPROCESS, TINY, write_config, write_folder


open_clip = pytest.importorskip("open_clip", reason="what is exported is compared with open_clip")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TEXTS = ["a red circle", "", "naïve CAFÉ 字, two dogs' toys; 2019!", "word " * 100]


@pytest.fixture(scope="module", params=[False, True], ids=["GELU", "QuickGELU"])
def folders(request, tmp_path_factory):
    """A folder of the smallest plain CLIP, in fp16, and what it is exported to."""
    path = tmp_path_factory.mktemp("export")
    folder = write_folder(path / "folder", {**TINY, "quick_gelu": request.param}, dtype=torch.float16)
    export(folder.path, path / "out")
    return folder.path, path / "out"


@pytest.fixture(scope="module")
def inputs(folders):
    """What open_clip and transformers make of three pictures and of TEXTS before the towers see them."""
    folder, out = folders
    rng = np.random.default_rng(0)
    squares = rng.integers(0, 256, (3, 6, 8, 3), dtype=np.uint8).repeat(10, axis=1).repeat(10, axis=2)
    pictures = [Image.fromarray(picture) for picture in squares]  # 80×60
    _, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    pixels = torch.stack([transform(picture) for picture in pictures])
    processor = transformers.AutoProcessor.from_pretrained(out)
    exported = processor(images=pictures, text=TEXTS, padding=True, truncation=True, return_tensors="pt")
    return pixels, exported


@torch.inference_mode()
def test_vectors(folders, inputs):
    """Image and text features are open_clip's: cosine at least 0.99999, and of the same length."""
    folder, out = folders
    pixels, texts = inputs[0], inputs[1]["input_ids"]
    model = open_clip.create_model(f"local-dir:{folder}", precision="fp32").eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS)
    exported = transformers.CLIPModel.from_pretrained(out).eval()
    pairs = [
        (model.encode_image(pixels), exported.visual_projection(exported.vision_model(pixels).pooler_output)),
        (model.encode_text(tokens), exported.text_projection(exported.text_model(texts).pooler_output)),
    ]

    for theirs, ours in pairs:
        assert torch.cosine_similarity(theirs, ours).min() >= 0.99999
        torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)


def test_pixels(inputs):
    """Pixels are those of open_clip's transform, to one level of 255."""
    pixels, exported = inputs
    level = 1 / 255 / min(OPENAI_PREPROCESS["std"])

    assert (pixels - exported["pixel_values"]).abs().max() <= 1.01 * level


def test_tokens(folders):
    """The tokens are open_clip's, up to the padding, which comes after the end."""
    folder, out = folders
    theirs = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS).tolist()

    exported = transformers.AutoTokenizer.from_pretrained(out)(TEXTS, truncation=True)["input_ids"]

    assert [[*row, *[0] * (77 - len(row))] for row in exported] == theirs


@pytest.mark.parametrize(
    ("changes", "preprocess_cfg", "message"),
    [
        ({"multimodal_cfg": {}}, {}, "not a plain CLIP ViT"),
        ({}, {"preprocess_cfg": {"resize_mode": "squash"}}, "resize mode squash has no counterpart"),
    ],
)
def test_what_cannot_be_exported(tmp_path, changes, preprocess_cfg, message):
    """What transformers' CLIPModel cannot express is refused before anything is written."""
    write_config(tmp_path / "folder", {**TINY, **changes}, **preprocess_cfg)

    with pytest.raises(ValueError, match=message):
        export(tmp_path / "folder", tmp_path / "out")

    assert not (tmp_path / "out").exists()
