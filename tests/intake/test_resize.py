"""The model's square equals open_clip's, pixel by pixel, whatever the size, mode and orientation."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from embedding.errors import StartupError
from embedding.intake.preprocess import OPENAI_MEAN, OPENAI_STD, Preprocess
from embedding.intake.resize import _TO_UPRIGHT, fit


# Width, height, side of the square: both ways round, both ways scaled, and where Pillow's rule turns.
SIZES = [
    (1, 1, 224),
    (2, 200, 224),
    (200, 2, 224),
    (223, 224, 224),
    (224, 224, 224),
    (225, 224, 224),
    (224, 448, 224),
    (224, 449, 224),
    (300, 500, 224),
    (300, 600, 224),
    (640, 480, 224),
    (480, 640, 224),
    (511, 993, 336),
    (1280, 720, 336),
    (333, 777, 64),
]
INVERSE = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
# Where the crop's edges are not float32 numbers: at most one level, for at most this share of values.
MAX_SHARE = 2e-3
MAX_TOTAL_SHARE = 1e-3


def picture(width, height, mode="RGB"):
    """Return noise over a gradient: the hardest picture to resize alike."""
    random = np.random.default_rng(width * 10_000 + height)
    pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels[: height // 2] = np.linspace(0, 255, width, dtype=np.uint8)[:, None]
    return Image.fromarray(pixels).convert(mode)


class TestAgainstOpenClip:
    @pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
    @pytest.mark.parametrize("mode", ["squash", "longest"])
    @pytest.mark.parametrize("sizes", SIZES)
    def test_is_equal_without_a_crop(self, reference, sizes, mode, interpolation):
        """Squash and longest give the very same pixels."""
        width, height, size = sizes
        preprocess = Preprocess(size=size, resize_mode=mode, interpolation=interpolation, fill_color=77)
        image = picture(width, height)

        assert np.array_equal(np.array(fit(image, preprocess)), reference(preprocess)(image))

    def test_differs_by_one_level_in_a_crop(self, reference):
        """Shortest gives the same pixels but for one level in fewer than one of a thousand."""
        different = values = 0
        for width, height, size in SIZES:
            preprocess = Preprocess(size=size)
            image = picture(width, height)
            gaps = np.abs(np.array(fit(image, preprocess)) - reference(preprocess)(image))
            different += np.count_nonzero(gaps)
            values += gaps.size

            assert gaps.max() <= 1, (width, height, size)
            assert np.count_nonzero(gaps) <= MAX_SHARE * gaps.size, (width, height, size)

        assert different <= MAX_TOTAL_SHARE * values

    @pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_turning_later_is_turning_first(self, reference, orientation, mode):
        """A picture stored in any orientation gives what the reference gives for the upright one."""
        preprocess = Preprocess(size=96, resize_mode=mode)
        for width, height in ((320, 200), (200, 320), (150, 301), (101, 100), (60, 40), (40, 60)):
            upright = picture(width, height)
            stored = upright.transpose(_TO_UPRIGHT[INVERSE[orientation]]) if orientation > 1 else upright
            turned = np.array(fit(stored, preprocess, orientation=orientation))
            gaps = np.abs(turned - reference(preprocess)(upright))

            assert gaps.max() <= (mode == "shortest"), (width, height)
            assert np.count_nonzero(gaps) <= MAX_SHARE * gaps.size, (width, height)

    @pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
    def test_grey_is_resized_as_rgb_would_be(self, mode):
        """A grey picture takes a third of the work and gives the pixels of its RGB form."""
        preprocess = Preprocess(size=64, resize_mode=mode, fill_color=9)
        grey = picture(120, 90, "L")

        assert np.array_equal(np.array(fit(grey, preprocess)), np.array(fit(grey.convert("RGB"), preprocess)))


class TestPreprocess:
    def test_defaults_are_openais(self):
        """Without a config, pictures are prepared as for OpenAI's ViT-B/32."""
        assert Preprocess.from_config({}) == Preprocess(
            224, "bicubic", "shortest", 0, OPENAI_MEAN, OPENAI_STD
        )

    def test_reads_an_open_clip_config(self):
        """All keys of open_clip's preprocess_cfg are read; null means default, other keys are not ours."""
        config = {
            "size": [384, 384],
            "mode": "RGB",
            "mean": [0.5, 0.5, 0.5],
            "std": 0.5,
            "interpolation": "bilinear",
            "resize_mode": "squash",
            "fill_color": None,
            "unknown": 1,
        }

        assert Preprocess.from_config(config) == Preprocess(
            384, "bilinear", "squash", 0, (0.5,) * 3, (0.5,) * 3
        )

    @pytest.mark.parametrize(
        "config",
        [
            {"size": 0},
            {"size": 4097},
            {"size": [224, 336]},
            {"size": "large"},
            {"size": []},
            {"mode": "L"},
            {"interpolation": "lanczos"},
            {"interpolation": "random"},
            {"resize_mode": "crop"},
            {"fill_color": 256},
            {"fill_color": -1},
            {"mean": [0.5, 0.5]},
            {"mean": [float("nan"), 0, 0]},
            {"std": [1, 1, 0]},
            {"std": [1, 1, float("inf")]},
            {"std": "one"},
        ],
    )
    def test_refuses_what_it_cannot_do_exactly(self, config):
        """A config that is not understood stops the start instead of changing every vector."""
        with pytest.raises(StartupError, match="preprocess"):
            Preprocess.from_config(config)
