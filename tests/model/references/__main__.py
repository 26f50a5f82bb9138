"""Makes the stored references anew, with open_clip: `python -m tests.model.references`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

from embedding.intake.text import MERGES
from tests.model import references
from tests.model.folders import TINY, shrunk, write_folder
from tests.model.open_clip_answers import features, golden, levels, merges, normalised, tokens


def main() -> None:
    """Write every file of references."""
    configs = {name: shrunk(name, layers) for name, layers in references.FAMILY.items()}
    references.CONFIGS.write_text(f"{json.dumps(configs, indent=1)}\n", encoding="utf-8")
    references.TOKENS.write_text(f"{json.dumps(tokens(references.TOKEN_TEXTS))}\n", encoding="utf-8")
    np.save(MERGES, merges())
    pixels = {f"levels {case}": levels(*row) for case, row in enumerate(references.PIXELS)}
    np.savez_compressed(references.PIXEL_LEVELS, normalised=normalised(), **pixels)
    vectors = {}
    with tempfile.TemporaryDirectory() as path:
        for name, model_cfg in {"tiny": TINY, **configs}.items():
            folder = write_folder(Path(path) / name, model_cfg)
            vectors[f"{name} images"], vectors[f"{name} texts"] = features(folder.path)
        vectors["golden"] = golden(Path(path) / "tiny")
    np.savez_compressed(references.VECTORS, **vectors)


if __name__ == "__main__":
    main()
