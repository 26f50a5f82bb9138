"""The real worker under examination: handler.py behind a loopback RunPod, on one core, and what it costs."""

from __future__ import annotations

import base64
import os
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedding.serve.smoke import bundled_picture
from tests.loopback import LoopbackRunPod
from tests.serve.conftest import WORKER


LAUNCHER = Path(__file__).with_name("small_machine.py")
# What an image can be answered: INVALID_INPUT is for an empty one.
REFUSALS = {"DECODE_ERROR", "IMAGE_TOO_LARGE", "INVALID_INPUT"}
# RunPod carries 20 MB in a job; what is longer is cut, and longer than the worker's limit all the same.
MAX_SENT_BYTES = 14_900_000
ANSWER_TIMEOUT_S = 120
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Answer:
    """A vector or the code of a refusal, the seconds until it came, and those of the worker's CPU."""

    vector: Any = None
    code: str | None = None
    wall_s: float = 0.0
    cpu_s: float = 0.0


class Subject:
    """A worker that is ready; single jobs, batches, many jobs at once."""

    def __init__(self, platform, worker) -> None:
        self._platform = platform
        self._worker = worker
        self._idle_bytes = self._memory("VmRSS")

    def alone(self, data):
        """Return the answer to *data* sent as a job of its own while nothing else is."""
        cpu_s, started_s = self._cpu_s(), time.perf_counter()
        answer = self.together([data])[0]
        return Answer(answer.vector, answer.code, time.perf_counter() - started_s, self._cpu_s() - cpu_s)

    def together(self, files):
        """Return the answers to *files*, each a job, all sent at once."""
        ids = [self._platform._submit([{"input": image(data)}], is_sync=True)[0] for data in files]
        results = self._finish(ids)
        return [
            Answer(vector=np.array(result.output["embedding"]))
            if result.status == "COMPLETED"
            else Answer(code=(result.output or {}).get("error_code", f"{result.status}: {result.error}"))
            for result in results
        ]

    def batch(self, items):
        """Return the answers to *items*, fields of a batch's items, sent as one job."""
        ids = self._platform._submit([{"input": {"items": items}}], is_sync=True)
        result = self._finish(ids)[0]
        if result.status != "COMPLETED":
            return [Answer(code=f"{result.status}: {result.error}")] * len(items)
        return [
            Answer(code=found["error"]["code"])
            if "error" in found
            else Answer(vector=np.array(found["embedding"]))
            for found in result.output["results"]
        ]

    def forget_peak(self):
        """Count the peak of memory from now on."""
        Path(f"/proc/{self._worker.pid}/clear_refs").write_text("5", encoding="ascii")

    def peak_mb(self):
        """Return the most memory since `forget_peak`, in megabytes over that of the idle worker."""
        return (self._memory("VmHWM") - self._idle_bytes) / 1e6

    def _finish(self, ids):
        results = self._platform.wait_all(ids, ANSWER_TIMEOUT_S)
        self._platform._call(self._platform._store.forget, ids)
        return results

    def _memory(self, field):
        status = Path(f"/proc/{self._worker.pid}/status").read_text(encoding="ascii")
        return int(status.split(f"{field}:")[1].split()[0]) * 1024

    def _cpu_s(self):
        stat = Path(f"/proc/{self._worker.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / TICKS_PER_S


def image(data):
    """Return the fields that ask for the picture *data*."""
    return {"image_base64": base64.b64encode(data[:MAX_SENT_BYTES]).decode()}


def good():
    """Return the bundled picture."""
    return bundled_picture()


@contextmanager
def subject(cpus=1):
    """Yield a worker on one core that is sized for *cpus*."""
    core = max(os.sched_getaffinity(0))
    command = [sys.executable, str(LAUNCHER), str(core), str(cpus)]
    with LoopbackRunPod(hold_s=1.0) as platform, platform.worker(command, env=WORKER) as worker:
        worker.wait_ready(60)
        yield Subject(platform, worker)
