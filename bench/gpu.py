"""How fast a GPU is in our hands: the engine beside the bare forward of the same towers.

    python -m bench.gpu [--model DIR] [--json FILE]

measures ViT-B/32 and ViT-L/14 with random weights, or the model of DIR, in about five minutes, and ends with
1 where there is no GPU. It needs torch, numpy, safetensors and what the tokenizer imports, but not open_clip.

The bare forward has its tensors prepared on the device and nothing else to do. The engine is fed as the
worker feeds it, with arrays of the host, and gives arrays of the host back. The two alternate. Cosines are
to fp32 on the same inputs, the worst of a batch.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import torch
import torch.nn.functional as F  # noqa: N812

from bench.figures import rate
from bench.gpu_inputs import folders, load, pictures, short_text
from bench.report import Measure, aligned, table
from embedding.model.engine import Engine


if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from torch import Tensor

    from bench.report import Row
    from embedding.model.embedder import EmbeddingModel, Precision
    from embedding.model.engine import Features, Kind
    from embedding.model.folder import WeightsFolder

PRECISIONS: Final[tuple[Precision, ...]] = ("fp32", "fp16", "bf16")
RATIO: Final = Measure("engine_vs_bare", "images/s, engine to bare forward, fp16", "", 0.90, at_least=True)
IMAGE_P50: Final = Measure("image_p50", "one image at a time in the engine, fp16", "ms", 3.0)
TEXT_P50: Final = Measure("text_p50", "one text at a time in the engine, fp16", "ms", 3.0)
MEMORY: Final = Measure("gpu_memory", "most that torch held, engine and bare forward, fp16", "MB")
_WAITING: Final = 256


@dataclass(frozen=True, slots=True)
class Effort:
    """What is measured, and for how long."""

    batch: int = 64
    batches: tuple[int, ...] = (1, 8, 32, 64, 128)
    rounds: int = 3
    seconds: float = 3.0
    single_calls: int = 300


@dataclass(frozen=True, slots=True)
class Cell:
    """A line of the table of models, precisions and batches."""

    model: str
    precision: str
    batch: int
    images_per_s: float
    worst_cosine: float


def call_s(call: Callable[[], object], *, seconds: float, device: str) -> float:
    """Return the seconds of one *call* among many without a pause, for about *seconds*.

    On CUDA they are the device's, between two events.
    """
    for _ in range(3):
        call()
    started_s = time.perf_counter()
    call()
    _synchronise(device)
    count = max(3, int(seconds / max(time.perf_counter() - started_s, 1e-6)))
    if not device.startswith("cuda"):
        started_s = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - started_s) / count
    with torch.cuda.device(device):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(count):
            call()
        last.record()
        last.synchronize()
    return first.elapsed_time(last) / 1e3 / count


@torch.inference_mode()
def bare_images_per_s(model: EmbeddingModel, batch: int, *, seconds: float) -> float:
    """Return images a second of the bare forward of *batch* prepared pictures."""
    encode = model._towers.encode_image  # noqa: SLF001  what is measured is what the model itself runs
    prepared = model.normalise(pictures(batch, model.identity.image_size))
    return batch / call_s(lambda: encode(prepared), seconds=seconds, device=model.identity.device)


def engine_images_per_s(engine: Engine[EmbeddingModel], *, seconds: float) -> float:
    """Return images a second of *engine*, with 256 always submitted and not answered."""
    waiting = pictures(_WAITING, engine.loaded.result().identity.image_size)
    slots = threading.Semaphore(_WAITING)
    ended_s: list[float] = []

    def ended(_: object) -> None:
        ended_s.append(time.perf_counter())
        slots.release()

    futures: list[Future[Features]] = []
    begun_s = time.perf_counter()
    while (passed_s := time.perf_counter() - begun_s) < seconds:
        slots.acquire()
        futures.append(engine.submit("image", waiting[len(futures) % _WAITING]))
        futures[-1].add_done_callback(ended)
    for future in futures:
        future.result()
    steady = [at_s for at_s in ended_s if seconds * 0.1 < at_s - begun_s < passed_s]
    return rate(steady)


def p50_ms(engine: Engine[EmbeddingModel], kind: Kind, value: Any, *, calls: int) -> float:
    """Return the median milliseconds from submitting *value* to its features, one at a time."""
    took_ms = []
    for _ in range(calls):
        started_s = time.perf_counter()
        engine.submit(kind, value).result()
        took_ms.append((time.perf_counter() - started_s) * 1e3)
    return median(took_ms[calls // 10 :])


def engine_rows(folder: WeightsFolder, *, device: str, effort: Effort) -> list[Row]:
    """Return the rows of *folder* in the engine, in fp16."""
    _reset_peak(device)
    engine = Engine(
        lambda: load(folder, device=device, precision="fp16"),
        max_forward_items=effort.batch,
    )
    try:
        model = engine.loaded.result()
        image = pictures(1, model.identity.image_size)[0]
        p50s_ms = [
            p50_ms(engine, "image", image, calls=effort.single_calls),
            p50_ms(engine, "text", short_text(), calls=effort.single_calls),
        ]
        bare, ours = [], []
        for _ in range(effort.rounds):
            bare.append(bare_images_per_s(model, effort.batch, seconds=effort.seconds))
            ours.append(engine_images_per_s(engine, seconds=effort.seconds))
        memory_mb = _peak_bytes(device) / 1e6
    finally:
        engine.close()
    name = folder.model_name
    rates = f"{name}, batch {effort.batch}: {median(ours):,.0f} of {median(bare):,.0f} images/s"
    rows = [RATIO.row(median(ours) / median(bare), rates)]
    rows += [which.row(ms, name) for which, ms in zip((IMAGE_P50, TEXT_P50), p50s_ms, strict=True)]
    return [*rows, MEMORY.row(memory_mb, name)]


def cells(folder: WeightsFolder, *, device: str, effort: Effort) -> list[Cell]:
    """Return images a second, and the cosine to fp32, of *folder* in every precision and batch."""
    result: list[Cell] = []
    exact: Tensor | None = None  # the first precision's features of the largest batch
    for precision in PRECISIONS:
        model = load(folder, device=device, precision=precision)
        inputs = pictures(max(effort.batches), model.identity.image_size)
        exact = torch.from_numpy(model.embed_images(inputs)) if exact is None else exact
        for batch in effort.batches:
            features = torch.from_numpy(model.embed_images(inputs[:batch]))
            worst = F.cosine_similarity(features.double(), exact[:batch].double()).min()
            speed = bare_images_per_s(model, batch, seconds=effort.seconds)
            result.append(Cell(folder.model_name, precision, batch, speed, float(worst)))
        del model
    return result


def _synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _reset_peak(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _peak_bytes(device: str) -> int:
    return torch.cuda.max_memory_reserved(device) if device.startswith("cuda") else 0


def report(rows: Sequence[Row], lines: Sequence[Cell]) -> str:
    """Return both tables as text."""
    head = ("model", "precision", "batch", "images/s", "worst cosine to fp32")
    body = [
        (c.model, c.precision, str(c.batch), f"{c.images_per_s:,.0f}", f"{c.worst_cosine:.6f}") for c in lines
    ]
    return f"{table(rows)}\n\n{aligned([head, *body])}"


def main(arguments: Sequence[str] | None = None, *, effort: Effort | None = None) -> int:
    """Measure what *arguments* ask for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description="The engine on a GPU.")
    parser.add_argument("--model", type=Path, metavar="DIR", help="a folder in open_clip's hub format")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("there is no GPU that torch can use; nothing is measured", file=sys.stderr)
        return 1
    effort = effort or Effort()
    rows: list[Row] = []
    lines: list[Cell] = []
    with tempfile.TemporaryDirectory() as place:
        for folder in folders(options.model, Path(place)):
            print(f"measuring {folder.model_name}", file=sys.stderr, flush=True)
            rows += engine_rows(folder, device="cuda:0", effort=effort)
            lines += cells(folder, device="cuda:0", effort=effort)
    software = f"Python {platform.python_version()}, torch {torch.__version__}, CUDA {torch.version.cuda}"
    about = {"GPU": torch.cuda.get_device_name(0), "versions": software}
    print(f"{aligned(list(about.items()))}\n\n{report(rows, lines)}")
    if options.json:
        document = {"machine": about, "rows": [*map(asdict, rows)], "table": [*map(asdict, lines)]}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
