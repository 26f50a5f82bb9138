"""The model on its way into the device thread, while this thread goes on to import what else is needed.

Imports hold the interpreter; reading, hashing and converting weights do not. So the digest of the weights is
taken beside torch's import, and the weights are loaded and checked beside all other imports.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from embedding.model.folder import GOLDEN_NAME, start_digest, weights_file
from embedding.model.torch_import import import_torch
from embedding.model.weights import ModelSource, find_weights
from embedding.serve.diagnostics import torch_device


if TYPE_CHECKING:
    from embedding.model.embedder import EmbeddingModel
    from embedding.model.engine import Engine
    from embedding.serve.diagnostics import Phases
    from embedding.settings import Settings

LOAD: Final = "load and check the model"


class Loading:
    """Started when made; `engine.loaded` is the model, or the StartupError that says why there is none."""

    engine: Engine[EmbeddingModel]
    cpu_threads: int
    golden: str  # once loaded: how the model stands against its golden vectors

    def __init__(self, settings: Settings, phases: Phases) -> None:
        """Find the weights, import torch, start the engine. Raises StartupError if there are no weights."""
        self.settings, self.phases = settings, phases
        with phases.phase("find weights"):
            self._folder = find_weights(_source(settings))
            self._digest = start_digest(weights_file(self._folder.path))
        with phases.phase("import torch"):
            import_torch()
            import embedding.model.golden  # noqa: PLC0415, F401
            from embedding.model.cores import leave_cpu_to_the_engine  # noqa: PLC0415
            from embedding.model.engine import start_engine  # noqa: PLC0415
        self._device = torch_device(settings.gpu_device)
        self.cpu_threads = leave_cpu_to_the_engine()
        phases.expect(LOAD)
        self.engine = start_engine(self._load, device=self._device, cpu_threads=self.cpu_threads)

    def _load(self) -> EmbeddingModel:
        from embedding.model.golden import load_checked  # noqa: PLC0415

        with self.phases.phase(LOAD):
            precision = self.settings.precision
            model, cosine = load_checked(
                self._folder, device=self._device, precision=precision, digest=self._digest
            )
        if (self._folder.path / GOLDEN_NAME).exists():
            self.golden = f"golden vectors: cosine {cosine:.6f} to those made by open_clip"
        else:
            self.golden = f"no {GOLDEN_NAME} in this folder: cosine {cosine:.6f} between two runs"
        return model


def _source(settings: Settings) -> ModelSource:
    return ModelSource(
        model_path=settings.model_path,
        model_name=settings.clip_model_name,
        pretrained=settings.clip_pretrained,
        roots=tuple(Path(root) for root in settings.model_roots),
    )
