"""Our towers give open_clip's vectors, stage by stage, from the same files."""

from __future__ import annotations

import json

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from embedding.model.clip import CLIP
from embedding.model.folder import CONFIG_NAME
from embedding.model.loader import load_model
from embedding.model.prepare import prepare
from tests.model.folders import OPENAI_PREPROCESS, TINY, pictures, random_model, shrunk, write_folder


# name, blocks per tower: the real widths, heads, patches and activations
FAMILY = [("ViT-B-32", 3), ("ViT-B-32-quickgelu", 3), ("ViT-B-16", 2), ("ViT-L-14", 2)]
BOUNDS = {"fp32": 0.99999, "fp16": 0.9995, "bf16": 0.9995}
TEXTS = [
    "a red circle",
    "",
    "two dogs, playing in the snow; a photo from 2019!",
    "naïve café 字 😀",
    "word " * 100,
    "before <end_of_text> behind",
]


@pytest.fixture(scope="module", params=FAMILY, ids=[name for name, _ in FAMILY])
def folder(request, tmp_path_factory):
    """A folder in fp32 of each shrunk model."""
    name, layers = request.param
    return write_folder(tmp_path_factory.mktemp("parity") / name, shrunk(name, layers))


@pytest.fixture(scope="module")
def model(folder):
    """Our model of it, in fp32."""
    return load_model(folder, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def reference(folder):
    """open_clip's model of the same folder."""
    return open_clip.create_model(f"local-dir:{folder.path}", precision="fp32").eval()


@pytest.fixture(scope="module")
def pixels():
    """Three pictures of the models' size."""
    return pictures(224)


def transformed(reference, pixels):
    """Return *pixels* through open_clip's own transform, (B, 3, S, S)."""
    transform = image_transform_v2(PreprocessCfg(**reference.visual.preprocess_cfg), is_train=False)
    return torch.stack([transform(Image.fromarray(picture)) for picture in pixels])


@pytest.fixture(scope="module")
def expected(reference, pixels):
    """What open_clip makes of them and of TEXTS."""
    return expected_vectors(reference, pixels)


def expected_vectors(reference, pixels):
    """Return what open_clip alone makes of *pixels* and TEXTS: its transform, its tokens, its towers."""
    with torch.inference_mode():
        images = reference.encode_image(transformed(reference, pixels))
        texts = reference.encode_text(open_clip.tokenize(TEXTS))
    return images.numpy(), texts.numpy()


def our_vectors(model, pixels):
    """Return what we make of *pixels* and TEXTS."""
    tokens = [model.tokenizer.tokenize(text, truncate=True) for text in TEXTS]
    return model.embed_images(pixels), model.embed_texts(tokens)


def cosines(a, b):
    """Return the cosine of each row of *a* with that row of *b*."""
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


class TestStages:
    def test_pixels(self, model, reference, pixels):
        """Bytes normalised on the device are open_clip's transform of the same picture."""
        torch.testing.assert_close(model.normalise(pixels), transformed(reference, pixels), atol=1e-6, rtol=0)

    def test_tokens(self, folder, model):
        """Padded to the context, our tokens are open_clip's."""
        expected = open_clip.get_tokenizer(f"local-dir:{folder.path}")(TEXTS).tolist()

        ids = [model.tokenizer.tokenize(text, truncate=True).ids for text in TEXTS]

        assert expected == [[*row, *[0] * (77 - len(row))] for row in ids]

    @pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
    def test_features(self, folder, expected, pixels, precision):
        """Image and text features agree within the precision's bound; different inputs do not."""
        vectors = our_vectors(load_model(folder, device="cpu", precision=precision), pixels)

        for ours, theirs in zip(vectors, expected, strict=True):
            assert ours.dtype == np.float32
            assert cosines(ours, theirs).min() >= BOUNDS[precision]
            assert cosines(theirs, np.roll(theirs, 1, axis=0)).max() < 0.96

    def test_features_are_not_normalised(self, model, expected, pixels):
        """In fp32 the features equal open_clip's, length included."""
        for ours, theirs in zip(our_vectors(model, pixels), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=2e-5 * np.abs(theirs).max())


class TestNeighbours:
    def test_independence(self, model, pixels):
        """An item's features are the same alone as beside others, however long those are."""
        tokens = [model.tokenizer.tokenize(text, truncate=True) for text in TEXTS]
        together = [*model.embed_images(pixels), *model.embed_texts(tokens)]

        alone = [model.embed_images([picture])[0] for picture in pixels]
        alone += [model.embed_texts([text])[0] for text in tokens]

        for one, among_others in zip(alone, together, strict=True):
            np.testing.assert_allclose(_unit(one), _unit(among_others), atol=1e-5)


class TestFormats:
    @pytest.mark.parametrize(
        ("file", "dtype", "prefix"),
        [
            ("open_clip_model.safetensors", torch.float16, ""),
            ("open_clip_pytorch_model.bin", torch.float32, ""),
            ("open_clip_pytorch_model.bin", torch.float16, "module."),
        ],
        ids=["fp16 safetensors", "pickled state dict", "pickled training checkpoint"],
    )
    def test_files(self, tmp_path, file, dtype, prefix):
        """Every format that open_clip reads from a folder gives the vectors that open_clip gives."""
        folder = write_folder(tmp_path / "folder", TINY, file=file, dtype=dtype, prefix=prefix)

        assert_parity(folder)

    def test_custom_text(self, tmp_path):
        """A text tower of its own, under `text.`, is the same tower."""
        assert_parity(write_folder(tmp_path / "folder", {**TINY, "custom_text": True}))

    def test_old_layout_of_custom_text(self, tmp_path):
        """A config with `custom_text` beside weights without it, as old repositories have, loads too."""
        folder = write_folder(tmp_path / "folder", TINY)
        config = json.loads((folder.path / CONFIG_NAME).read_text())
        config["model_cfg"]["custom_text"] = True
        (folder.path / CONFIG_NAME).write_text(json.dumps(config))

        assert_parity(folder)

    @pytest.mark.usefixtures("tiny_models")
    def test_training_checkpoint(self, tmp_path):
        """A checkpoint of open_clip's trainer, prepared by us, serves the vectors of the model trained."""
        trained = random_model(TINY, seed=7)
        state = {f"module.{name}": tensor for name, tensor in trained.state_dict().items()}
        torch.save({"epoch": 3, "name": "run", "state_dict": state}, tmp_path / "epoch_3.pt")

        folder = prepare("tiny", "epoch-3", tmp_path / "out", weights=tmp_path / "epoch_3.pt")

        pixels = pictures(32)
        trained.visual.preprocess_cfg = {"size": 32, **OPENAI_PREPROCESS}
        vectors = our_vectors(load_model(folder, device="cpu", precision="fp32"), pixels)
        for ours, theirs in zip(vectors, expected_vectors(trained, pixels), strict=True):
            assert cosines(ours, theirs).min() >= 0.99999  # the weights were rounded to fp16

    def test_no_gradient_is_kept(self, tiny_folder):
        """The towers are in evaluation mode and no parameter asks for a gradient."""
        towers = load_model(tiny_folder, device="cpu", precision="fp32")._towers

        assert isinstance(towers, CLIP)
        assert not towers.training
        assert not any(parameter.requires_grad for parameter in towers.parameters())


def assert_parity(folder):
    """Assert that our towers serve *folder*, and as open_clip does."""
    reference = open_clip.create_model(f"local-dir:{folder.path}", precision="fp32").eval()
    pixels = pictures(32)
    model = load_model(folder, device="cpu", precision="fp32")
    assert model.identity.architecture == "own"
    for ours, theirs in zip(our_vectors(model, pixels), expected_vectors(reference, pixels), strict=True):
        assert cosines(ours, theirs).min() >= BOUNDS["fp32"]


def _unit(vector):
    return vector / np.linalg.norm(vector)
