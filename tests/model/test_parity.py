"""Our towers give open_clip's vectors, stage by stage, from the same files, on every device there is."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch

from embedding.intake.preprocess import Preprocess
from embedding.intake.text import Tokenizer
from embedding.model.clip import CLIP
from embedding.model.folder import CONFIG_NAME
from embedding.model.loader import load_model
from tests.model import references
from tests.model.folders import OPENAI_PREPROCESS, TINY, needs_open_clip, random_model, write_folder
from tests.model.references import FAMILY, PIXELS, TEXTS, picture, pictures


BOUNDS = {"fp32": 0.99999, "fp16": 0.9995, "bf16": 0.9995}


@pytest.fixture(scope="module", params=list(FAMILY))
def folder(request, tmp_path_factory):
    """A folder of each shrunk model, called by its name."""
    path = tmp_path_factory.mktemp("parity") / request.param
    return write_folder(path, references.config(request.param), dtype=torch.float16)


@pytest.fixture(scope="module")
def model(folder, device):
    """Our model of it, in fp32."""
    return load_model(folder, device=device, precision="fp32")


def our_vectors(model):
    """Return what we make of the references' pictures and TEXTS."""
    tokens = [model.tokenizer.tokenize(text, truncate=True) for text in TEXTS]
    return model.embed_images(pictures(model.identity.image_size)), model.embed_texts(tokens)


def cosines(a, b):
    """Return the cosine of each row of *a* with that row of *b*."""
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


class TestStages:
    @pytest.mark.parametrize("case", range(len(PIXELS)))
    def test_levels(self, case):
        """A file decoded and fitted is open_clip's transform of the same picture, to one level of 255."""
        intake = pytest.importorskip("embedding.intake.image", reason="an image decoder is not installed")
        width, height, side, interpolation, resize_mode = PIXELS[case]
        file = io.BytesIO()
        picture(width, height).save(file, "PNG")
        preprocess = Preprocess(side, interpolation=interpolation, resize_mode=resize_mode)

        ours = intake.decode_image(file.getvalue(), preprocess=preprocess, limits=intake.ImageLimits())

        assert np.abs(ours.astype(int) - references.levels(case)).max() <= 1

    def test_normalised(self, tiny_folder, device):
        """Bytes normalised on the device are open_clip's transform of the same picture."""
        model = load_model(tiny_folder, device=device, precision="fp32")
        expected = references.normalised().repeat(8, axis=2).repeat(8, axis=3)

        ours = model.normalise(pictures(32)).cpu().numpy()

        np.testing.assert_allclose(ours, expected, atol=1e-6, rtol=0)

    @pytest.mark.parametrize("number", range(len(references.TOKEN_TEXTS)))
    def test_tokens(self, number):
        """Our tokens are open_clip's, truncation included."""
        ours = Tokenizer().tokenize(references.TOKEN_TEXTS[number], truncate=True)

        assert list(ours.ids) == references.tokens()[number]

    @pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
    def test_features(self, folder, device, precision):
        """Image and text features agree within the precision's bound; different inputs do not."""
        ours = our_vectors(load_model(folder, device=device, precision=precision))

        for mine, theirs in zip(ours, references.vectors(folder.model_name), strict=True):
            assert mine.dtype == np.float32
            assert cosines(mine, theirs).min() >= BOUNDS[precision]
            assert cosines(theirs, np.roll(theirs, 1, axis=0)).max() < 0.96

    def test_features_are_not_normalised(self, folder, model, device):
        """In fp32 the features equal open_clip's, length included."""
        share = 2e-5 if device == "cpu" else 1e-4  # a GPU sums in another order
        for mine, theirs in zip(our_vectors(model), references.vectors(folder.model_name), strict=True):
            np.testing.assert_allclose(mine, theirs, atol=share * np.abs(theirs).max())


class TestNeighbours:
    def test_independence(self, model):
        """An item's features are the same alone as beside others, however long those are."""
        pixels = pictures(model.identity.image_size)
        tokens = [model.tokenizer.tokenize(text, truncate=True) for text in TEXTS]
        together = [*model.embed_images(pixels), *model.embed_texts(tokens)]

        alone = [model.embed_images([picture])[0] for picture in pixels]
        alone += [model.embed_texts([text])[0] for text in tokens]

        for one, among_others in zip(alone, together, strict=True):
            np.testing.assert_allclose(_unit(one), _unit(among_others), atol=1e-5)


class TestFormats:
    @pytest.fixture(params=["stored", pytest.param("open_clip", marks=needs_open_clip)])
    def expected(self, request):
        """What gives open_clip's features of a folder of the tiny model: as stored, or by open_clip now."""
        if request.param == "stored":
            return lambda _: references.vectors("tiny")
        from tests.model.open_clip_answers import features  # noqa: PLC0415  imports open_clip

        return features

    @pytest.mark.parametrize(
        ("file", "dtype", "prefix"),
        [
            ("open_clip_model.safetensors", torch.float16, ""),
            ("open_clip_pytorch_model.bin", torch.float32, ""),
            ("open_clip_pytorch_model.bin", torch.float16, "module."),
        ],
        ids=["fp16 safetensors", "pickled state dict", "pickled training checkpoint"],
    )
    def test_files(self, tmp_path, expected, file, dtype, prefix):
        """Every format that open_clip reads from a folder gives the vectors that open_clip gives."""
        folder = write_folder(tmp_path / "folder", TINY, file=file, dtype=dtype, prefix=prefix)

        assert_parity(folder, expected)

    def test_custom_text(self, tmp_path, expected):
        """A text tower of its own, under `text.`, is the same tower."""
        assert_parity(write_folder(tmp_path / "folder", {**TINY, "custom_text": True}), expected)

    def test_old_layout_of_custom_text(self, tmp_path, expected):
        """A config with `custom_text` beside weights without it, as old repositories have, loads too."""
        folder = write_folder(tmp_path / "folder", TINY)
        config = json.loads((folder.path / CONFIG_NAME).read_text())
        config["model_cfg"]["custom_text"] = True
        (folder.path / CONFIG_NAME).write_text(json.dumps(config))

        assert_parity(folder, expected)

    @pytest.mark.usefixtures("tiny_models")
    def test_training_checkpoint(self, tmp_path):
        """A checkpoint of open_clip's trainer, prepared by us, serves the vectors of the model trained."""
        from embedding.model.prepare import prepare  # noqa: PLC0415  imports open_clip
        from tests.model.open_clip_answers import features_of  # noqa: PLC0415

        trained = random_model(TINY, seed=7)
        state = {f"module.{name}": tensor for name, tensor in trained.state_dict().items()}
        torch.save({"epoch": 3, "name": "run", "state_dict": state}, tmp_path / "epoch_3.pt")

        folder = prepare("tiny", "epoch-3", tmp_path / "out", weights=tmp_path / "epoch_3.pt")

        trained.visual.preprocess_cfg = {"size": 32, **OPENAI_PREPROCESS}
        ours = our_vectors(load_model(folder, device="cpu", precision="fp32"))
        for mine, theirs in zip(ours, features_of(trained), strict=True):
            assert cosines(mine, theirs).min() >= BOUNDS["fp32"]

    def test_no_gradient_is_kept(self, tiny_folder):
        """The towers are in evaluation mode and no parameter asks for a gradient."""
        towers = load_model(tiny_folder, device="cpu", precision="fp32")._towers

        assert isinstance(towers, CLIP)
        assert not towers.training
        assert not any(parameter.requires_grad for parameter in towers.parameters())


def assert_parity(folder, expected):
    """Assert that our towers serve *folder*, and as open_clip does."""
    model = load_model(folder, device="cpu", precision="fp32")
    assert model.identity.architecture == "own"
    for mine, theirs in zip(our_vectors(model), expected(folder.path), strict=True):
        assert cosines(mine, theirs).min() >= BOUNDS["fp32"]


def _unit(vector):
    return vector / np.linalg.norm(vector)
