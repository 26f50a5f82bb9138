"""Golden vectors stop a worker whose model gives other vectors than open_clip."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from embedding.__main__ import main
from embedding.errors import StartupError
from embedding.model.embedder import EmbeddingModel
from embedding.model.folder import CONFIG_NAME, GOLDEN_NAME, WEIGHTS_NAME, WeightsFolder, file_sha256
from embedding.model.golden import (
    PICTURE,
    TEXTS,
    TooCoarse,
    check_golden,
    golden_picture,
    load_checked,
    write_golden,
)
from embedding.model.loader import load_model
from tests.model.folders import TINY, needs_open_clip, write_config
from tests.model.references import golden_vectors


@pytest.fixture(scope="module")
def golden_folder(tiny_folder, tmp_path_factory):
    """The tiny folder, with golden vectors."""
    path = shutil.copytree(tiny_folder.path, tmp_path_factory.mktemp("golden") / "tiny")
    golden = {
        "picture": PICTURE,
        "texts": TEXTS,
        "weights_sha256": file_sha256(path / WEIGHTS_NAME),
        "vectors": golden_vectors(),
    }
    (path / GOLDEN_NAME).write_text(json.dumps(golden))
    return path


@pytest.fixture
def folder(golden_folder, tmp_path):
    """A copy of it that a test may change."""
    return WeightsFolder(shutil.copytree(golden_folder, tmp_path / "copy"), "copy", "", "MODEL_PATH")


def test_no_folder(tmp_path, capsys):
    """The command names its own argument, and no variable."""
    status = main(["golden", str(tmp_path / "nope")])

    told = f"error: DIR must be a folder that holds the weights, and {tmp_path / 'nope'} is none\n"
    assert (status, capsys.readouterr().err) == (1, told)


def check(folder, precision="fp32", device="cpu"):
    """Check the model of *folder*."""
    return check_golden(load_model(folder, device=device, precision=precision))


def change_golden(folder, **changes):
    """Write *changes* into the golden file of *folder*."""
    file = folder.path / GOLDEN_NAME
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def change_weights(folder, change):
    """Apply *change* to the weights of *folder*."""
    tensors = load_file(folder.path / WEIGHTS_NAME)
    change(tensors)
    save_file(tensors, folder.path / WEIGHTS_NAME)


class TestPicture:
    @pytest.mark.parametrize("side", [1, 16, 224, 378])
    def test_any_size(self, side):
        """The picture fills any size, and is the same each time."""
        picture = golden_picture(side)

        assert (picture.shape, picture.dtype) == ((side, side, 3), np.uint8)
        assert (picture == golden_picture(side)).all()

    def test_content(self):
        """Its corners are known: black to yellow, with a board in blue."""
        picture = golden_picture(224)

        assert picture[0, 0].tolist() == [0, 0, 0]
        assert picture[0, -1].tolist() == [255, 0, 255]
        assert picture[-1, -1].tolist() == [255, 255, 0]


class TestCheck:
    @pytest.mark.parametrize(("precision", "bound"), [("fp32", 0.99999), ("fp16", 0.9995), ("bf16", 0.9995)])
    def test_passes(self, folder, device, precision, bound):
        """An honest model passes in every precision, and its worst cosine is told."""
        assert bound <= check(folder, precision, device) <= 1.0001

    def test_other_activation(self, folder):
        """A model with the wrong activation does not pass."""
        write_config(folder.path, {**TINY, "quick_gelu": True})

        with pytest.raises(
            TooCoarse, match=r"^the vectors differ from open_clip's \(cosine 0\.\d+, at least 0.99999"
        ):
            check(folder)

    def test_other_normalisation(self, folder):
        """Nor does one whose pixels are normalised otherwise."""
        document = json.loads((folder.path / CONFIG_NAME).read_text())
        document["preprocess_cfg"]["std"] = [0.5, 0.5, 0.5]
        (folder.path / CONFIG_NAME).write_text(json.dumps(document))

        with pytest.raises(TooCoarse):
            check(folder)

    def test_other_weights(self, folder):
        """Weights that are not those of the golden file are found by their digest."""
        change_weights(folder, lambda tensors: tensors["visual.proj"].add_(1))

        with pytest.raises(
            StartupError, match=r"belongs to other weights; make it anew with 'python -m embedding"
        ):
            check(folder)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"texts": ["a", "b"]}, "was made for another model or version"),
            ({"picture": "noise"}, "was made for another model or version"),
            ({"vectors": [[0.0] * 8] * 3}, "was made for another model or version"),
            ({"vectors": [[0.0], [0.0, 1.0]]}, "cannot be read"),
            ({"vectors": "abc"}, "cannot be read"),
            ({"weights_sha256": None}, "was made for another model or version"),
            ({"texts": None}, "cannot be read"),
        ],
    )
    def test_damaged_file(self, folder, changes, message):
        """A golden file that is damaged, or another version's, is said to be so."""
        change_golden(folder, **changes)

        with pytest.raises(StartupError, match=f"{GOLDEN_NAME} {message}"):
            check(folder)

    @pytest.mark.parametrize("content", ["", "[]", "{}"])
    def test_no_golden_file(self, folder, content):
        """So is one that is none at all."""
        (folder.path / GOLDEN_NAME).write_text(content)

        with pytest.raises(StartupError, match=f"{GOLDEN_NAME} cannot be read"):
            check(folder)

    def test_failing_device(self, folder, monkeypatch):
        """A device whose first forward fails is told in one line."""

        def fail(*_):
            raise RuntimeError("CUDA error: no kernel image is available\nCompile with ...")

        monkeypatch.setattr(EmbeddingModel, "embed_images", fail)

        with pytest.raises(
            StartupError, match=r"^the first vectors failed on cpu: CUDA error: no kernel image"
        ):
            check(folder)


class TestWithoutGoldenVectors:
    def test_passes(self, tiny_folder):
        """A folder without golden vectors passes if its model repeats itself."""
        assert check(tiny_folder) == pytest.approx(1, abs=1e-6)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda t: t["visual.proj"].fill_(float("nan")), "the vectors are not finite"),
            (lambda t: t["ln_final.weight"].fill_(0), "different inputs give one vector"),
        ],
        ids=["not finite", "collapsed"],
    )
    def test_no_clip(self, folder, change, message):
        """A model that no one could have trained does not."""
        change_weights(folder, change)
        (folder.path / GOLDEN_NAME).unlink()

        with pytest.raises(StartupError, match=message):
            check(folder)


class TestPrecision:
    def test_auto_falls_back(self, folder, monkeypatch, caplog):
        """Where auto's 16 bits are too coarse for the weights, fp32 is used, and the log says so."""
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
        monkeypatch.setattr("embedding.model.golden.LOW_PRECISION_BOUND", 0.9999999)

        model, worst = load_checked(folder, device="cpu", precision="auto")

        assert model.identity.precision == "fp32"
        assert worst >= 0.99999
        assert "in bf16" in caplog.text
        assert caplog.text.strip().endswith("using fp32")

    def test_auto_stays(self, folder, monkeypatch):
        """Otherwise it stays with what it chose."""
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})

        assert load_checked(folder, device="cpu")[0].identity.precision == "bf16"

    def test_asked_is_not_changed(self, folder, monkeypatch):
        """A precision that was asked for is refused, not changed."""
        monkeypatch.setattr("embedding.model.golden.LOW_PRECISION_BOUND", 0.9999999)

        with pytest.raises(TooCoarse):
            load_checked(folder, device="cpu", precision="bf16")


@needs_open_clip
def test_what_open_clip_cannot_load(folder):
    """A folder that open_clip cannot load gets no golden vectors, but its reason."""
    change_weights(folder, lambda tensors: tensors.pop("visual.proj"))

    with pytest.raises(StartupError, match=r"^open_clip cannot load .*visual\.proj"):
        write_golden(folder.path)
