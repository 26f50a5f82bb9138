"""Bulk runs against what they could be: the worker's own speed by the queue, the engine's on one machine.

A run is the command `embed` in a process of its own, and its rate the one that it tells. By the queue one
worker serves callers and bulk runs in turns; they share the machine with it. Small pictures and the demo
model show what a row costs beside its vector, photographs and ViT-B/32 what it costs in earnest.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench import inputs, process
from bench.figures import ratio, spread
from bench.model import ROOT, run_python
from bench.report import Measure
from bench.serving import ours, serving
from embedding.model.weights import DEMO_PATH
from tests.loopback.worker import worker_environment


if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.plan import Plan
    from bench.report import Row
    from tests.loopback import LoopbackRunPod

JOB: Final = 64
CALLERS: Final = 16  # with a job of 64 each: as many items as the engine lets wait
SMALL_PICTURES: Final = 2_048
SMALL: Final = (96, 96)
SMALL_TIMES: Final = 20.0  # as many rows: each is a tenth of the work of a photograph on ViT-B/32
RUN_S: Final = 600
COMMAND: Final = ("embedding", "embed", "list.txt", "--as", "image", "--out", "out.npy", "--restart")

QUEUE_DEMO, QUEUE = (
    Measure(name, f"rows/s of embed --endpoint against the worker's own{told}", "×", 0.9, at_least=True)
    for name, told in (("bulk_queue_demo", ", demo model"), ("bulk_queue", ""))
)
LOCAL_DEMO, LOCAL = (
    Measure(name, f"rows/s of embed --local against the engine's ceiling{told}", "×", 0.9, at_least=True)
    for name, told in (("bulk_local_demo", ", demo model"), ("bulk_local", ""))
)
MEASURES: Final = (QUEUE_DEMO, QUEUE, LOCAL_DEMO, LOCAL)


@dataclass(frozen=True, slots=True)
class Setting:
    """A model, pictures, and how many rows a run has, each picture many times."""

    model: Path
    pictures: Sequence[bytes]
    rows: int

    def bodies(self) -> list[bytes]:
        """Return full jobs of the pictures, serialised, which ask for what a bulk run asks for."""
        items = [{"image_base64": base64.b64encode(data).decode()} for data in self.pictures]
        items *= -(-JOB // len(items))
        jobs = [items[first : first + JOB] for first in range(0, len(items) - JOB + 1, JOB)]
        return [inputs.job({"items": job, "encoding_format": "base64"}) for job in jobs]


def measure(plan: Plan) -> list[Row]:
    """Measure what *plan* wants; return its rows."""
    rows: list[Row] = []
    if plan.wants(QUEUE_DEMO.name, LOCAL_DEMO.name):
        small = inputs.jpegs(SMALL_PICTURES, SMALL)
        setting = Setting(DEMO_PATH, small, round(SMALL_TIMES * plan.lengths.bulk_rows))
        rows += _measured(plan, setting, QUEUE_DEMO, LOCAL_DEMO)
    if plan.wants(QUEUE.name, LOCAL.name):
        rows += _measured(plan, Setting(plan.folder, plan.pictures, plan.lengths.bulk_rows), QUEUE, LOCAL)
    return rows


def _measured(plan: Plan, setting: Setting, queue: Measure, local: Measure) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="bulk-") as folder:
        place = _filled(Path(folder), setting)
        if plan.wants(queue.name):
            yield _by_queue(plan, setting, queue, place)
        if plan.wants(local.name):
            yield _on_this_machine(plan, setting, local, place)


def _filled(place: Path, setting: Setting) -> Path:
    """Write the pictures and a list that names each many times; return *place*."""
    (place / "pictures").mkdir()
    names = []
    for number, data in enumerate(setting.pictures):
        names.append(f"pictures/{number:06}.img.jpg")
        (place / names[-1]).write_bytes(data)
    lines = [f"{names[row % len(names)]}\n" for row in range(setting.rows)]
    (place / "list.txt").write_text("".join(lines), encoding="utf-8")
    return place


def _by_queue(plan: Plan, setting: Setting, measure: Measure, place: Path) -> Row:
    own, bulk, worker_ms = [], [], list[tuple[float, float]]()
    bodies = setting.bodies()
    with serving(ours(setting.model), reads_results=True) as served:
        served.load(bodies, callers=CALLERS, duration_s=plan.lengths.warm_up_s)
        for number in range(plan.lengths.rounds):
            plan.say(
                f"  {measure.name}: turn {number + 1}, the worker's own and a run of {setting.rows} rows"
            )
            seen = served.load(bodies, callers=CALLERS, duration_s=plan.lengths.load_s)
            own.append(JOB * seen.jobs_per_s)
            before_s = process.cpu_s(served.worker.pid)
            bulk.append(_run(place, served.platform))
            in_run_ms = (process.cpu_s(served.worker.pid) - before_s) * 1e3 / setting.rows
            worker_ms.append((in_run_ms, seen.worker_cpu_ms / JOB))
    cpu = " / ".join(spread(each, ".2f") for each in zip(*worker_ms, strict=True))
    told = f"{spread(bulk, '.0f')} / {spread(own, '.0f')} per second; the worker's CPU a row {cpu} ms"
    return measure.row(ratio(bulk, own), told)


def _on_this_machine(plan: Plan, setting: Setting, measure: Measure, place: Path) -> Row:
    ceilings, bulk = [], []
    for number in range(plan.lengths.rounds):
        plan.say(f"  {measure.name}, turn {number + 1}: the ceiling, then {setting.rows} rows")
        seconds = str(plan.lengths.load_s)
        told = run_python(
            "-m", "bench.bulk_ceiling", str(setting.model), str(place / "pictures"), "--seconds", seconds
        )
        ceilings.append(json.loads(told))
        bulk.append(_run(place, MODEL_PATH=str(setting.model)))
    decoded, bare = ([each[name] for each in ceilings] for name in ("decoded", "bare"))
    return measure.row(
        ratio(bulk, decoded),
        f"{spread(bulk, '.0f')} / {spread(decoded, '.0f')} per second; decoded before: {spread(bare, '.0f')}",
    )


def _run(place: Path, platform: LoopbackRunPod | None = None, **env: str) -> float:
    """Run `embed` over the list; return the rows a second that it tells. Raises RuntimeError if it fails."""
    where, base_url, api_key = ["--local"], "", ""
    if platform is not None:
        where, base_url, api_key = ["--endpoint", platform.endpoint_id], platform.base_url, platform.api_key
        env |= {"RUNPOD_API_KEY": api_key, "RUNPOD_ENDPOINT_BASE_URL": base_url}
    done = subprocess.run(  # noqa: S603  our own interpreter and command
        [sys.executable, "-m", *COMMAND, *where],
        cwd=place,
        env=worker_environment(base_url, "", "", api_key) | {"PYTHONPATH": str(ROOT)} | env,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"embed ended with {done.returncode}: {done.stderr[-300:]}")
    told = next(line for line in done.stdout.splitlines() if " rows now, in " in line)
    return float(told.rpartition(": ")[2].split()[0].replace(",", ""))
