"""Does the device still give the right vectors? The golden inputs, by the way that every job's items go.

A device can fail without an error: it hangs, or its numbers are wrong. `health` with `check` finds both.
Wrong vectors, or none, are for good: such a worker must be replaced. Whoever asks while a check runs gets its
result.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from embedding.errors import InferenceError, Overloaded
from embedding.model.golden import TEXTS, golden_picture, worst_cosine


if TYPE_CHECKING:
    import numpy.typing as npt

    from embedding.model.embedder import EmbeddingModel
    from embedding.model.engine import Engine

TIMEOUT_S: Final = 10.0  # a full queue of ViT-L/14 takes less on a GPU


class SelfTest:
    """Embeds the golden picture and texts through *engine*; `has_failed` stays once it is true."""

    def __init__(
        self,
        engine: Engine[EmbeddingModel],
        expected: npt.NDArray[np.float64] | None,
        *,
        bound: float,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Expect vectors near *expected* (1 + T, D); None asks for finite ones.

        *bound* is the least cosine when a worker starts. Here an error twice as large passes: among others in
        a batch numbers are rounded otherwise, and a broken device is not that near.
        """
        self.has_failed = False
        self._engine = engine
        self._expected = expected
        self._bound = 1 - 2 * (1 - bound)
        self._timeout_s = timeout_s
        self._running: asyncio.Task[dict[str, Any]] | None = None

    async def run(self) -> dict[str, Any]:
        """Return `{"passed": true, "took_ms": …}`, with `cosine` where known; or false, with `reason`."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return await asyncio.shield(self._running)

    async def _run(self) -> dict[str, Any]:
        started_s = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout_s):
                vectors = await self._embed()
        except TimeoutError:
            return _failed(f"the device gave no answer within {self._timeout_s:g} s")
        except InferenceError as error:  # these inputs were embedded when the worker started
            self.has_failed = True
            return _failed(f"{error.code}: {error.message}")
        except Overloaded as error:
            return _failed(f"{error.code}: {error.message}")
        passed = {"passed": True, "took_ms": round((time.perf_counter() - started_s) * 1e3, 3)}
        if self._expected is None:
            return passed
        cosine = worst_cosine(vectors, self._expected)
        if cosine >= self._bound:
            return {**passed, "cosine": round(cosine, 6)}
        self.has_failed = True
        return _failed(
            f"the vectors are wrong: cosine {cosine:.6f} to the golden ones, {self._bound:g} is needed"
        )

    async def _embed(self) -> npt.NDArray[np.float32]:
        model = self._engine.loaded.result()
        work = [self._engine.submit("image", golden_picture(model.preprocess.size))]
        work += [self._engine.submit("text", model.tokenizer.tokenize(text, truncate=True)) for text in TEXTS]
        features = await asyncio.gather(*map(asyncio.wrap_future, work))
        return np.stack([each.vector for each in features])  # (1 + T, D)


def _failed(reason: str) -> dict[str, Any]:
    return {"passed": False, "reason": reason}
