"""What every picture and text must become: embedded alone, by a model that nothing disturbs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from embedding.contract.encoding import normalize
from embedding.intake.image import ImageLimits, decode_image
from embedding.model.loader import load_model
from embedding.model.weights import ModelSource, find_weights


if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy.typing as npt


def reference_vectors(
    pictures: Mapping[str, bytes], texts: Iterable[str]
) -> dict[str, npt.NDArray[np.float32]]:
    """Return the vectors (D,) of the demo model in fp32, normalised, by the names of pictures and texts."""
    model = load_model(find_weights(ModelSource()), device="cpu", precision="fp32")
    vectors = {}
    for name, file in pictures.items():
        pixels = decode_image(file, preprocess=model.preprocess, limits=ImageLimits())
        vectors[name] = normalize(model.embed_images([pixels])[0])
    for text in texts:
        vectors[text] = normalize(model.embed_texts([model.tokenizer.tokenize(text, truncate=True)])[0])
    return vectors


def nearest(vectors: Mapping[str, npt.NDArray[np.float32]]) -> float:
    """Return how far apart the two vectors are that are most alike, by their largest difference."""
    rows = np.stack(list(vectors.values()))
    return min(
        float(np.abs(rows[place + 1 :] - row).max(axis=1).min()) for place, row in enumerate(rows[:-1])
    )
