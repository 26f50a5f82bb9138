"""The embedded demo model: what it is drawn from, and that it means what its card says."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
import torch
from PIL import Image

from embedding.contract.encoding import normalize
from embedding.intake.resize import fit
from embedding.model.loader import load_model
from embedding.model.weights import DEMO_PATH, ModelSource, find_weights
from embedding.serve.smoke import bundled_picture
from scripts.demo_model.__main__ import main
from scripts.demo_model.batches import attribute_captions, batches, padded, render
from scripts.demo_model.draw import (
    SMOKE_SCENE,
    SMOKE_SIZE_PX,
    Scene,
    caption,
    combinations,
    draw,
    held_out_combinations,
    random_scene,
    random_size_px,
)
from scripts.demo_model.train import MODEL_CONFIG, Recipe, train
from scripts.demo_model.vocabulary import BACKGROUNDS


SEED = Recipe().seed
MAX_WEIGHTS_BYTES = 12_000_000


@pytest.fixture(scope="module")
def model():
    """Return the committed model on our own towers, in fp32."""
    return load_model(find_weights(ModelSource()), device="cpu", precision="fp32")


def image_vectors(model, pictures):
    """Return the normalised vectors of Pillow *pictures*, (N, 512)."""
    pixels = [np.asarray(fit(picture, model.preprocess)) for picture in pictures]
    return np.stack([normalize(row) for row in model.embed_images(pixels)])


def text_vectors(model, texts):
    """Return the normalised vectors of *texts*, (N, 512)."""
    tokens = [model.tokenizer.tokenize(text, truncate=False) for text in texts]
    return np.stack([normalize(row) for row in model.embed_texts(tokens)])


class TestDrawings:
    def test_same_scene_gives_the_same_pixels(self):
        """A drawing is a function of its scene and size alone."""
        scene = Scene("red", "star", "white", seed=3)

        assert draw(scene, (90, 64)).tobytes() == draw(scene, (90, 64)).tobytes()

    def test_bundled_picture_is_the_drawing_it_says(self):
        """The smoke test's JPEG is the red circle on white that the repository draws."""
        bundled = np.asarray(Image.open(io.BytesIO(bundled_picture())), dtype=float)
        drawn = np.asarray(draw(SMOKE_SCENE, SMOKE_SIZE_PX), dtype=float)

        assert bundled.shape == (480, 640, 3)
        assert np.abs(bundled - drawn).mean() < 1
        assert caption(SMOKE_SCENE, "{things}") == "a red circle"

    def test_one_hundred_combinations_are_withheld(self):
        """They are different, no training scene shows one, and each background loses equally many."""
        held_out = held_out_combinations(SEED)

        assert len(set(held_out)) == 100
        assert set(held_out) <= set(combinations())
        for background in BACKGROUNDS:
            assert sum(combination.background == background for combination in held_out) == 20
        assert {(c.colour, c.shape) for c in combinations() if c not in held_out} == {
            (c.colour, c.shape) for c in combinations()
        }

    def test_truth_says_which_caption_fits_which_picture(self):
        """Every picture's own caption is true of it, and a full caption of another combination is not."""
        rng = random.Random(0)
        scenes = [random_scene(rng, combination) for combination in combinations()[:40]]
        batch = next(batches(scenes, render(scenes, rng), 16, rng))

        assert batch.truth.diagonal().all()
        assert not batch.truth.all()
        assert batch.attributes.shape == (16, 3)

    def test_attribute_captions_are_in_the_order_of_the_attributes(self):
        """What `attributes` numbers is what the captions name."""
        colours, shapes, backgrounds = attribute_captions()

        assert colours[0] == "something red"
        assert shapes[0] == "a circle"
        assert backgrounds[0] == "a white background"
        assert padded(backgrounds).shape[0] == len(BACKGROUNDS)


class TestTraining:
    def test_two_steps_give_a_model_of_the_right_shape(self, capsys):
        """Training runs, tells its progress, and ends with the whole context."""
        trained = train(Recipe(steps=2, batch=8, drawings=400, report_every_steps=1))

        assert trained.positional_embedding.shape[0] == MODEL_CONFIG["text_cfg"]["context_length"]
        assert "step 2/2" in capsys.readouterr().out
        assert not torch.equal(trained.logit_scale, torch.zeros(()))

    def test_help_teaches(self, capsys):
        """--help names every option."""
        with pytest.raises(SystemExit):
            main(["--help"])

        assert "--seed" in capsys.readouterr().out


class TestCommittedModel:
    def test_is_small(self):
        """All files of the folder together stay under 12 MB."""
        assert sum(file.stat().st_size for file in DEMO_PATH.iterdir()) < MAX_WEIGHTS_BYTES

    def test_ranks_unseen_combinations(self, model):
        """Of 100 drawings never trained on, 95 % find their caption, and of captions their drawing."""
        shares = []
        for seed in range(3):
            rng = random.Random(f"test {seed}")
            scenes = [random_scene(rng, combination) for combination in held_out_combinations(SEED)]
            images = image_vectors(model, [draw(scene, random_size_px(rng)) for scene in scenes])
            similarity = images @ text_vectors(model, [caption(scene) for scene in scenes]).T
            own = np.arange(len(scenes))
            shares.append([(similarity.argmax(axis=axis) == own).mean() for axis in (1, 0)])

        assert np.mean(shares, axis=0).min() >= 0.95, shares

    def test_card_tells_its_figures(self):
        """The card holds a table of what was measured and what the model cannot do."""
        card = (DEMO_PATH / "README.md").read_text(encoding="utf-8")

        assert "| picture to caption, 100 withheld combinations |" in card
        assert "What it cannot do" in card
