"""The stored references are what open_clip gives now, and their inputs the same numbers everywhere."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from embedding.intake.text import MERGES
from tests.model import references
from tests.model.folders import NO_OPEN_CLIP, TINY, needs_open_clip, open_clip, shrunk, write_folder
from tests.model.references import FAMILY, PIXELS


@pytest.fixture(scope="module")
def answers():
    """What asks open_clip."""
    if open_clip is None:
        pytest.skip(NO_OPEN_CLIP)
    from tests.model import open_clip_answers  # noqa: PLC0415  imports open_clip

    return open_clip_answers


class TestInputs:
    def test_weights(self):
        """Weights come from their name, shape and seed, number for number."""
        drawn = [references.weight(name, (64, 128)) for name in ("visual.proj", "out_proj.weight")]
        drawn.append(references.weight("ln_1.weight", (5,), seed=1))

        assert _digest(*drawn) == "96063dc79ea1b821"

    def test_pictures(self):
        """So do pictures."""
        assert _digest(references.pictures(32), np.array(references.picture(70, 50))) == "e26eb9c1760261ef"

    @pytest.mark.parametrize(
        ("name", "shape", "mean", "deviation"),
        [
            ("visual.transformer.resblocks.0.mlp.c_fc.weight", (400, 100), 0, 0.1),
            ("visual.transformer.resblocks.0.attn.in_proj_weight", (300, 100), 0, 0.1),
            ("visual.transformer.resblocks.0.attn.out_proj.weight", (400, 100), 0, 0.2),
            ("text_projection", (400, 100), 0, 0.05),
            ("visual.ln_pre.weight", (10_000,), 1, 0.1),
            ("ln_final.bias", (10_000,), 0, 0.1),
            ("token_embedding.weight", (1000, 100), 0, 0.5),
        ],
    )
    def test_sizes(self, name, shape, mean, deviation):
        """Weights have a size at which every part of a tower counts."""
        weight = references.weight(name, shape).astype(np.float64)

        assert weight.mean() == pytest.approx(mean, abs=0.01)
        assert weight.std() == pytest.approx(deviation, rel=0.02)


class TestAnswers:
    @needs_open_clip
    @pytest.mark.parametrize(("name", "layers"), FAMILY.items())
    def test_configs(self, name, layers):
        """The configs are open_clip's, but for the number of blocks."""
        assert references.config(name) == shrunk(name, layers)

    @pytest.mark.parametrize("name", ["tiny", "ViT-B-32-quickgelu"])
    def test_vectors(self, answers, tmp_path, name):
        """The features are open_clip's."""
        folder = write_folder(tmp_path / name, TINY if name == "tiny" else references.config(name))

        for stored, now in zip(references.vectors(name), answers.features(folder.path), strict=True):
            np.testing.assert_allclose(stored, now, atol=1e-5 * np.abs(now).max())

    def test_golden_vectors(self, answers, tmp_path):
        """The golden vectors are those that open_clip gives."""
        folder = write_folder(tmp_path / "tiny", TINY)

        np.testing.assert_allclose(references.golden_vectors(), answers.golden(folder.path), atol=1e-6)

    @pytest.mark.parametrize("case", range(len(PIXELS)))
    def test_levels(self, answers, case):
        """The pixels are those of its transform."""
        assert (references.levels(case) == answers.levels(*PIXELS[case])).all()

    def test_normalised(self, answers):
        """So are the normalised ones."""
        np.testing.assert_allclose(references.normalised(), answers.normalised(), atol=1e-6)

    def test_tokens(self, answers):
        """The tokens are those of its tokenizer."""
        assert references.tokens() == answers.tokens(references.TOKEN_TEXTS)

    def test_vocabulary(self, answers):
        """The tokenizer's merges are those of its tokenizer."""
        np.testing.assert_array_equal(np.load(MERGES), answers.merges())


def test_a_wrong_activation_shows():
    """QuickGELU for GELU moves the features further than fp32's bound allows."""
    for gelu, quick in zip(*map(references.vectors, ("ViT-B-32", "ViT-B-32-quickgelu")), strict=True):
        lengths = np.linalg.norm(gelu, axis=1) * np.linalg.norm(quick, axis=1)
        assert ((gelu * quick).sum(1) / lengths).max() < 0.99999


def test_they_are_small():
    """All stored files together stay under a megabyte."""
    assert sum(file.stat().st_size for file in references.FOLDER.iterdir() if file.is_file()) < 1_000_000


def _digest(*arrays):
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:16]
