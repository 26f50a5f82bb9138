"""What the engine of the demo model can do on this machine, where nothing is walked, kept or written.

`python -m tests.bulk.ceiling FOLDER` prints pictures a second, as JSON: "bare" where they lie decoded before
the engine; "decoded" where they are read from FOLDER, which the page cache holds, decoded in jobs of 64, run
and made of length 1: by one thread or by one for each core, whichever is faster here.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tests.bulk.running import ROOT, environment


PICTURES = 2_000
SECONDS = 5.0
JOB = 64
WAITING = 640


def measure(folder):
    """Return what a process of its own measured with the pictures of *folder*."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bulk.ceiling", str(folder)],
        cwd=ROOT,
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def main(folder):
    """Measure both."""
    from embedding.serve.diagnostics import Phases  # noqa: PLC0415  the worker, only in its own process
    from embedding.serve.loading import Loading  # noqa: PLC0415
    from embedding.settings import Settings  # noqa: PLC0415

    loading = Loading(Settings.from_env(), Phases())
    model, engine = loading.engine.loaded.result(), loading.engine
    import torch  # noqa: PLC0415

    from embedding.contract.encoding import normalize  # noqa: PLC0415
    from embedding.intake.image import ImageLimits, decode_image  # noqa: PLC0415

    files = sorted(path for path in Path(folder).rglob("*.*") if path.is_file())[:PICTURES]
    limits = ImageLimits(max_bytes=10 << 20)
    gc.collect()
    gc.freeze()

    def decoded(number):
        return decode_image(
            files[number % len(files)].read_bytes(), preprocess=model.preprocess, limits=limits
        )

    def by_threads(count):
        def job(numbers):
            squares = [decoded(number) for number in numbers]
            return [engine.submit("image", square) for square in squares]

        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as threads:
            return per_second(lambda numbers: threads.submit(job, numbers), normalize)

    pixels = [decoded(number) for number in range(len(files))]

    def bare(numbers):
        futures = Future()
        futures.set_result([engine.submit("image", pixels[number % len(files)]) for number in numbers])
        return futures

    result = {
        "bare": per_second(bare, normalize),
        "decoded": max(by_threads(count) for count in {1, os.cpu_count() or 1}),
    }
    print(json.dumps(result))


def per_second(submit, normalize):
    """Return pictures a second where *submit* keeps some hundreds of them before the engine."""
    done, waiting = 0, []

    def finish():
        for future in waiting.pop(0).result():
            normalize(future.result().vector)

    started_s = time.perf_counter()
    while time.perf_counter() - started_s < SECONDS:
        waiting.append(submit(range(done, done + JOB)))
        done += JOB
        if len(waiting) * JOB >= WAITING:
            finish()
    while waiting:
        finish()
    return done / (time.perf_counter() - started_s)


if __name__ == "__main__":
    main(sys.argv[1])
