"""The job loop: what it carries without a model, how late it wakes under load, what it leaves behind."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Final

from bench import inputs, process
from bench.figures import percentile
from bench.lag import MARK
from bench.plan import CALLERS
from bench.report import Measure
from bench.serving import free_engine, ours, serving


if TYPE_CHECKING:
    from bench.plan import Plan
    from bench.report import Row
    from bench.serving import Serving

FREE: Final = Measure(
    "free_engine", "jobs/s with a free engine, WORKER_CONCURRENCY=64", "/s", 1500, at_least=True
)
LAG: Final = Measure("loop_lag", "how late the worker's event loop wakes under load, p99", "ms")
GROWTH: Final = Measure(
    "soak_growth", "growth of memory from the first tenth of all jobs (10,000) to the end", "%", 5.0
)
FILES: Final = Measure("soak_files", "open files more after all jobs (10,000) than after a tenth", "", 0)
SOAKS: Final = (GROWTH, FILES)

CONCURRENCY: Final = 64
STEPS: Final = 10
KEEP_ALIVE_S: Final = 31.0  # the SDK's HTTP client looks every 15 s for connections idle for 15 s
STOP_S: Final = 30.0


def measure_free(plan: Plan) -> list[Row]:
    """Return the row of jobs a second with an engine that costs nothing."""
    body = (inputs.job({"text": "a red circle"}),)
    seconds = plan.lengths.free_s
    with serving(free_engine(CONCURRENCY)) as served:
        served.load(body, callers=CALLERS, duration_s=1.0)
        busy = served.load(body, callers=CALLERS, duration_s=seconds)
        deep = served.load(body, callers=8 * CALLERS, duration_s=seconds)
        alone = served.load(body, callers=1, duration_s=1.0)
    told = (
        f"{CALLERS} callers; {8 * CALLERS} callers: {deep.jobs_per_s:.0f}/s; one caller waits "
        f"{alone.p50_ms:.1f} ms; CPU a job: worker {busy.worker_cpu_ms:.2f}, "
        f"platform and callers {busy.driver_cpu_ms:.2f} ms"
    )
    return [FREE.row(busy.jobs_per_s, told)]


def measure_lag(plan: Plan) -> list[Row]:
    """Return the row of the event loop's lag under the callers' load."""
    with serving(ours(plan.folder, script=("-m", "bench.lag"))) as served:
        served.load(plan.bodies, callers=CALLERS, duration_s=plan.lengths.warm_up_s + plan.lengths.load_s)
        served.worker.terminate()
        served.worker.wait(STOP_S)
        log = served.worker.log()
    _, found, line = log.rpartition(MARK)
    if not found:
        raise RuntimeError(f"the worker told no lag; its log ends: {log[-300:]}")
    lag = json.loads(line.splitlines()[0])
    told = f"p50 {lag['p50_ms']}, max {lag['max_ms']} ms of {lag['wake_ups']} wake-ups, {CALLERS} callers"
    return [LAG.row(lag["p99_ms"], told)]


def measure_soak(plan: Plan) -> list[Row]:
    """Return the rows of memory and open files after many jobs."""
    step = plan.lengths.soak_jobs // STEPS
    resident: list[float] = []
    with serving(ours(plan.folder)) as served:
        for number in range(STEPS):
            plan.say(f"  {number * step} of {plan.lengths.soak_jobs} jobs are done")
            served.run_jobs(plan.bodies, callers=CALLERS, jobs=step)
            resident.append(_settled_rss_mb(served))
            if number == 0:
                first_files = _idle_files(served)
        last_files = _idle_files(served)
    growth = (resident[-1] / resident[0] - 1) * 100
    told = f"MB every {step} jobs: {' '.join(f'{each:.0f}' for each in resident)}"
    files = f"{first_files} after {step} jobs, {last_files} after {plan.lengths.soak_jobs}, idle"
    rows = [GROWTH.row(growth, told), FILES.row(last_files - first_files, files)]
    return [row for row in rows if plan.wants(row.name)]


def _settled_rss_mb(served: Serving) -> float:
    samples = []
    for _ in range(5):
        time.sleep(0.1)
        samples.append(process.rss_bytes(served.worker.pid) / 1e6)
    return percentile(samples, 50)


def _idle_files(served: Serving) -> int:
    time.sleep(KEEP_ALIVE_S)
    return process.open_files(served.worker.pid)
