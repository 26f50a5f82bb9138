"""The figures of a GPU, taken from the CPU with a tiny model: that they are taken, not what they are."""

from __future__ import annotations

import json
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bench import gpu, gpu_inputs
from bench.gpu import Cell, Effort
from embedding.model.config import CLIPConfig
from embedding.model.engine import Engine


TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
EFFORT = Effort(batch=4, batches=(1, 3), rounds=1, seconds=0.2, single_calls=10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of random weights of a tiny model."""
    return gpu_inputs.write_random_folder(tmp_path_factory.mktemp("gpu") / "tiny", TINY)


class TestInputs:
    def test_models(self):
        """The models measured are the plain CLIPs of these names."""
        sizes = {name: CLIPConfig.from_json(cfg) for name, cfg in gpu_inputs.MODELS.items()}

        assert [(c.vision.positions, c.vision.layers, c.vision.heads) for c in sizes.values()] == [
            (50, 12, 12),
            (257, 24, 16),
        ]

    def test_same_weights_each_time(self, folder, tmp_path):
        """The same seed gives the same model, another one another."""
        again = gpu_inputs.write_random_folder(tmp_path / "again", TINY)
        other = gpu_inputs.write_random_folder(tmp_path / "other", TINY, seed=1)
        digests = [
            gpu_inputs.load(each, device="cpu", precision="fp32").identity.weights_sha256
            for each in (folder, again, other)
        ]

        assert digests[0] == digests[1] != digests[2]

    def test_features_do_not_collapse(self, folder):
        """Different pictures get different features."""
        model = gpu_inputs.load(folder, device="cpu", precision="fp32")
        features = model.embed_images(gpu_inputs.pictures(4, 32))
        units = features / np.linalg.norm(features, axis=1, keepdims=True)

        assert np.abs(units @ units.T - np.eye(4)).max() < 0.99

    @pytest.mark.parametrize("side", [32, 224, 225])
    def test_pictures(self, side):
        """Pictures fill the model's square and differ."""
        pictures = gpu_inputs.pictures(3, side)

        assert {(picture.shape, picture.dtype.name) for picture in pictures} == {((side, side, 3), "uint8")}
        assert len({picture.tobytes() for picture in pictures}) == 3

    def test_without_open_clip(self, folder, monkeypatch):
        """A model is loaded where open_clip is not installed."""
        monkeypatch.setitem(sys.modules, "open_clip", None)

        assert gpu_inputs.load(folder, device="cpu", precision="fp32").identity.dim == 16

    def test_chosen_folder(self, folder, tmp_path):
        """A folder that is named is measured alone, by its own name."""
        (only,) = gpu_inputs.folders(folder.path, tmp_path)

        assert (only.path, only.model_name) == (folder.path, "tiny")


@pytest.mark.parametrize("device", ["cpu", "cuda:0"] if torch.cuda.is_available() else ["cpu"])
class TestFigures:
    def test_rows(self, folder, device):
        """The engine is compared with the bare forward, and its answers to single inputs are timed."""
        rows = gpu.engine_rows(folder, device=device, effort=EFFORT)

        assert [row.name for row in rows] == ["engine_vs_bare", "image_p50", "text_p50", "gpu_memory"]
        assert all(row.value > 0 for row in rows[:3])
        assert [row.target for row in rows] == ["≥ 0.900", "≤ 3.00 ms", "≤ 3.00 ms", ""]

    def test_cells(self, folder, device):
        """Every precision is measured in every batch, with its distance from fp32."""
        cells = gpu.cells(folder, device=device, effort=EFFORT)

        assert [(cell.precision, cell.batch) for cell in cells] == [
            (precision, batch) for precision in ("fp32", "fp16", "bf16") for batch in (1, 3)
        ]
        assert all(cell.images_per_s > 0 for cell in cells)
        assert min(cell.worst_cosine for cell in cells if cell.precision == "fp32") > 0.999999
        assert 0.99 < min(cell.worst_cosine for cell in cells) < 0.999999


class TestRate:
    def test_engine_rate(self):
        """Images a second are those that the engine answers, however many wait."""
        engine = Engine(SlowModel, max_forward_items=16, max_waiting=300)
        try:
            speed = gpu.engine_images_per_s(engine, seconds=1.0)
        finally:
            engine.close()

        assert 500 < speed <= 1050


class SlowModel:
    """An encoder that takes a millisecond for each picture."""

    identity = SimpleNamespace(image_size=8)

    def embed_images(self, pixels):
        time.sleep(len(pixels) / 1e3)
        return np.ones((len(pixels), 2), np.float32)


class TestCommandLine:
    def test_no_gpu(self, monkeypatch, capsys):
        """Where there is no GPU one line says so, and the status is 1."""
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

        assert gpu.main([]) == 1
        assert capsys.readouterr().err == "there is no GPU that torch can use; nothing is measured\n"

    def test_tables(self, folder, tmp_path, monkeypatch, capsys):
        """Figures are printed beside their targets, met or not, and written as JSON."""
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
        rows = [gpu.RATIO.row(0.8, "tiny"), gpu.IMAGE_P50.row(2.0, "tiny")]
        monkeypatch.setattr(gpu, "engine_rows", lambda *_, **__: rows)
        monkeypatch.setattr(gpu, "cells", lambda *_, **__: [Cell("tiny", "fp16", 64, 12345.6, 0.99991)])

        assert gpu.main(["--model", str(folder.path), "--json", str(tmp_path / "out.json")]) == 0

        shown = capsys.readouterr().out
        document = json.loads((tmp_path / "out.json").read_text())
        assert "engine_vs_bare  0.800    ≥ 0.900    NO" in shown
        assert "image_p50       2.00 ms  ≤ 3.00 ms  yes" in shown
        assert "tiny   fp16       64     12,346    0.999910" in shown
        assert document["machine"]["GPU"] == "a GPU"
        assert document["table"][0]["images_per_s"] == 12345.6
