"""What the engine can do with pictures of a folder, where no row is counted, kept or written.

    python -m bench.bulk_ceiling MODEL_FOLDER PICTURES_FOLDER [--seconds S]

prints pictures a second, as JSON: "bare" where they lie decoded before the engine; "decoded" where they are
read, which the page cache holds, decoded in jobs of 64, run and made of length 1: by one thread or by one
for each core, whichever is faster here.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from embedding.contract.encoding import normalize
from embedding.intake.image import ImageLimits, decode_image
from embedding.model.cores import leave_cpu_to_the_engine
from embedding.model.engine import start_engine
from embedding.model.folder import WeightsFolder
from embedding.model.loader import load_model


if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    from embedding.model.embedder import EmbeddingModel
    from embedding.model.engine import Engine, Features

    Numbers = range
    Job = Future[list[Future[Features]]]

JOB: Final = 64
WAITING: Final = 640


class Ceiling:
    """An engine with the model of *folder*, and the pictures that it is given over and over."""

    def __init__(self, folder: Path, pictures: Path) -> None:
        source = WeightsFolder(folder, "", "", "MODEL_PATH")
        threads = leave_cpu_to_the_engine()
        self._engine: Engine[EmbeddingModel] = start_engine(
            lambda: load_model(source, device="cpu"), device="cpu", cpu_threads=threads
        )
        self._preprocess = self._engine.loaded.result().preprocess
        self._files = sorted(path for path in pictures.rglob("*.*") if path.is_file())
        gc.collect()
        gc.freeze()

    def bare(self, seconds: float) -> float:
        """Return pictures a second where all are decoded before."""
        pixels = [self._decoded(number) for number in range(len(self._files))]

        def submit(numbers: Numbers) -> Job:
            done: Job = Future()
            done.set_result(
                [self._engine.submit("image", pixels[number % len(pixels)]) for number in numbers]
            )
            return done

        return _per_second(submit, seconds)

    def decoded(self, seconds: float) -> float:
        """Return pictures a second where threads read and decode them."""
        counts = {1, os.cpu_count() or 1}
        return max(self._by_threads(count, seconds / len(counts)) for count in counts)

    def close(self) -> None:
        """End the engine."""
        self._engine.close()

    def _by_threads(self, count: int, seconds: float) -> float:
        def job(numbers: Numbers) -> list[Future[Features]]:
            squares = [self._decoded(number) for number in numbers]
            return [self._engine.submit("image", square) for square in squares]

        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as threads:
            return _per_second(lambda numbers: threads.submit(job, numbers), seconds)

    def _decoded(self, number: int) -> npt.NDArray[np.uint8]:
        data = self._files[number % len(self._files)].read_bytes()
        return decode_image(data, preprocess=self._preprocess, limits=ImageLimits())


def _per_second(submit: Callable[[Numbers], Job], seconds: float) -> float:
    """Return pictures a second where *submit* keeps some hundreds of them before the engine."""
    done, waiting = 0, list[Any]()

    def finish() -> None:
        for future in waiting.pop(0).result():
            normalize(future.result().vector)

    started_s = time.perf_counter()
    while time.perf_counter() - started_s < seconds:
        waiting.append(submit(range(done, done + JOB)))
        done += JOB
        if len(waiting) * JOB >= WAITING:
            finish()
    while waiting:
        finish()
    return done / (time.perf_counter() - started_s)


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.bulk_ceiling", description=__doc__)
    parser.add_argument("model", type=Path, help="a folder in open_clip's hub format")
    parser.add_argument("pictures", type=Path, help="a folder of pictures")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to measure each (10)")
    options = parser.parse_args()
    ceiling = Ceiling(options.model, options.pictures)
    decoded, bare = ceiling.decoded(options.seconds), ceiling.bare(options.seconds / 2)
    ceiling.close()
    print(json.dumps({"decoded": decoded, "bare": bare}))


if __name__ == "__main__":
    _main()
