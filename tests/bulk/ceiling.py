"""What the engine of the demo model can do on this machine, with nothing read and nothing written.

`python -m tests.bulk.ceiling` prints pictures a second, as JSON: "bare" where they lie decoded before the
engine, "decoded" where threads decode them from memory, as many as the worker has.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from tests.bulk.pictures import picture
from tests.bulk.running import ROOT, environment


PICTURES = 2_000
SECONDS = 8.0
WAITING = 512


def measure():
    """Return what a process of its own measured."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bulk.ceiling"],
        cwd=ROOT,
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def main():
    """Measure both."""
    from embedding.serve.diagnostics import Phases  # noqa: PLC0415  the worker, only in its own process
    from embedding.serve.loading import Loading  # noqa: PLC0415
    from embedding.settings import Settings  # noqa: PLC0415

    loading = Loading(Settings.from_env(), Phases())
    model, engine = loading.engine.loaded.result(), loading.engine
    import torch  # noqa: PLC0415

    from embedding.intake.image import ImageLimits, decode_image  # noqa: PLC0415

    files = [picture(number) for number in range(PICTURES)]
    limits = ImageLimits(max_bytes=10 << 20)

    def decoded(file):
        return decode_image(file, preprocess=model.preprocess, limits=limits)

    pixels = [decoded(file) for file in files]
    threads = ThreadPoolExecutor(os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,))

    def bare(numbers):
        return [engine.submit("image", pixels[number % PICTURES]) for number in numbers]

    def by_threads(numbers):
        return [
            engine.submit("image", square)
            for square in threads.map(decoded, (files[n % PICTURES] for n in numbers))
        ]

    result = {"bare": per_second(bare), "decoded": per_second(by_threads)}
    print(json.dumps(result))


def per_second(submit):
    """Return pictures a second where *submit* keeps some hundreds of them before the engine."""
    step, done, waiting = 64, 0, []
    started_s = time.perf_counter()
    while time.perf_counter() - started_s < SECONDS:
        waiting.append(submit(range(done, done + step)))
        done += step
        if len(waiting) * step >= WAITING:
            for future in waiting.pop(0):
                future.result()
    for futures in waiting:
        for future in futures:
            future.result()
    return done / (time.perf_counter() - started_s)


if __name__ == "__main__":
    main()
