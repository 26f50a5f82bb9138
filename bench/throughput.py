"""Jobs a second and a caller's wait, against the documented way, the bare forward and a peer, by turns.

One round measures every party once, a last turn of ours ends the run; ratios are of medians over rounds.
"""

from __future__ import annotations

from contextlib import suppress
from statistics import median
from typing import TYPE_CHECKING, Final

from bench import http_turns, process
from bench.figures import ratio, spread
from bench.http_turns import HttpTurns
from bench.plan import CALLERS
from bench.report import Measure
from bench.serving import documented, ours, serving


if TYPE_CHECKING:
    from bench.plan import Plan
    from bench.report import Row
    from bench.serving import Served

OURS, DOCUMENTED, CEILING, PEER = "this worker", "documented handler", "bare forward, batch 32", "Infinity"

JOBS: Final = Measure("throughput", f"jobs/s of this worker, {CALLERS} callers", "/s")
VS_DOCUMENTED: Final = Measure(
    "throughput_vs_documented", "jobs/s against the handler written as documented", "×", 72, at_least=True
)
VS_CEILING: Final = Measure(
    "throughput_vs_ceiling", "jobs/s against images/s of open_clip's bare forward", "×", 0.95, at_least=True
)
VS_INFINITY: Final = Measure(
    "throughput_vs_infinity", "jobs/s against Infinity (--peer infinity)", "×", 3.7, at_least=True
)
LATENCY: Final = Measure("latency_p50", "one caller's wait, at most bare batch-1 forward + 12 ms", "ms")
PEAK_MEMORY: Final = Measure("peak_memory", "most memory resident while serving", "GB", 1.05)
QUEUE: Final = (JOBS, VS_DOCUMENTED, VS_CEILING, VS_INFINITY, LATENCY, PEAK_MEMORY)
MEASURES: Final = (*QUEUE, *http_turns.MEASURES)

ALLOWED_MS: Final = 12.0


class Parties:
    """What the rounds have shown so far."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.ours: list[Served] = []
        self.ours_alone: list[Served] = []
        self.documented: list[Served] = []
        self.documented_alone_ms: list[float] = []
        self.peak_gb: list[float] = []
        self.heartbeat_gb = 0.0

    def serve_ours(self) -> None:
        """Measure this worker: callers, then one caller."""
        plan, lengths = self.plan, self.plan.lengths
        plan.say(f"  this worker, {CALLERS} callers for {lengths.load_s:.0f} s")
        with serving(ours(plan.folder)) as served:
            served.load(plan.bodies, callers=CALLERS, duration_s=lengths.warm_up_s)
            self.ours.append(
                served.load(
                    plan.bodies, callers=CALLERS, duration_s=lengths.load_s, references=plan.references
                )
            )
            self.ours_alone.append(served.load(plan.bodies, callers=1, duration_s=lengths.single_s))
            pid = served.worker.pid
            self.peak_gb.append(process.peak_rss_bytes(pid) / 1e9)
            with suppress(ProcessLookupError, FileNotFoundError):
                self.heartbeat_gb = max(process.rss_bytes(child) / 1e9 for child in process.children(pid))
        plan.note(OURS, self.ours[-1].jobs_per_s)

    def serve_documented(self) -> None:
        """Measure the documented handler the same way."""
        plan, lengths = self.plan, self.plan.lengths
        plan.say(f"  the documented handler, {CALLERS} callers for {lengths.documented_s:.0f} s")
        with serving(documented(plan.folder)) as served:
            served.load(plan.bodies, callers=CALLERS, duration_s=lengths.warm_up_s + 1)
            seconds = lengths.documented_s
            self.documented.append(
                served.load(plan.bodies, callers=CALLERS, duration_s=seconds, references=plan.references)
            )
            alone = served.load(plan.bodies, callers=1, duration_s=lengths.single_s + 1)
            self.documented_alone_ms.append(alone.p50_ms)
        plan.note(DOCUMENTED, self.documented[-1].jobs_per_s)

    def serve_peer(self) -> None:
        """Measure Infinity over its own HTTP interface."""
        from bench.infinity import measure  # noqa: PLC0415  needs an environment of its own

        plan = self.plan
        plan.say(f"  Infinity, {CALLERS} callers for {plan.lengths.load_s:.0f} s")
        per_s = measure(plan.folder, plan.pictures, callers=CALLERS, duration_s=plan.lengths.load_s)
        plan.note(PEER, per_s)


def measure(plan: Plan) -> list[Row]:
    """Run the rounds; return the rows that *plan* wants."""
    parties, over_http = Parties(plan), HttpTurns(plan)
    queue = plan.wants(*(measure.name for measure in QUEUE))
    http = plan.wants(*(measure.name for measure in http_turns.MEASURES))
    for number in range(1, plan.lengths.rounds + 1):
        plan.say(f"round {number} of {plan.lengths.rounds}")
        if queue:
            parties.serve_ours()
        if http:
            over_http.turn()
        if http or plan.wants(VS_CEILING.name, LATENCY.name):
            plan.note(CEILING, 32e3 / plan.measure_ceiling()["open_clip_images_32_ms"])
        if plan.wants(VS_DOCUMENTED.name, http_turns.VS_DOCUMENTED.name):
            parties.serve_documented()
        if plan.wants(VS_INFINITY.name, http_turns.VS_INFINITY.name):
            parties.serve_peer()
    if queue and plan.lengths.rounds > 1:
        plan.say("and once more")
        parties.serve_ours()
    rows = _rows(plan, parties) if queue else []
    return rows + (over_http.rows(documented_ms=parties.documented_alone_ms) if http else [])


def _rows(plan: Plan, parties: Parties) -> list[Row]:
    rows = [
        _against(plan, party, measure)
        for party, measure in ((DOCUMENTED, VS_DOCUMENTED), (CEILING, VS_CEILING), (PEER, VS_INFINITY))
        if plan.wants(measure.name) and party in plan.jobs_per_s
    ]
    if plan.wants(JOBS.name):
        rows.insert(0, _costs(plan, parties))
    if plan.wants(LATENCY.name):
        rows.append(_latency(plan, parties))
    if plan.wants(PEAK_MEMORY.name):
        told = f"{spread(parties.peak_gb, '.2f')}; heartbeat process, not counted: {parties.heartbeat_gb:.2f}"
        rows.append(PEAK_MEMORY.row(max(parties.peak_gb), told))
    return rows


def _against(plan: Plan, party: str, measure: Measure) -> Row:
    mine, theirs = plan.jobs_per_s[OURS], plan.jobs_per_s[party]
    return measure.row(ratio(mine, theirs), f"{spread(mine)} / {spread(theirs, '.2f')} per second")


def _costs(plan: Plan, parties: Parties) -> Row:
    last = parties.ours[-1]
    told = (
        f"{spread(plan.jobs_per_s[OURS])}; wait p50 {last.p50_ms:.0f}, p95 {last.p95_ms:.0f}, "
        f"p99 {last.p99_ms:.0f} ms; CPU a job: worker {last.worker_cpu_ms:.1f}, "
        f"platform and callers {last.driver_cpu_ms:.2f} ms"
    )
    return JOBS.row(median(plan.jobs_per_s[OURS]), told)


def _latency(plan: Plan, parties: Parties) -> Row:
    p50s = [alone.p50_ms for alone in parties.ours_alone]
    forward_ms = plan.forward_median_ms("open_clip_image_1_ms")
    p99s = spread([alone.p99_ms for alone in parties.ours_alone])
    told = f"p50 {spread(p50s)}, p99 {p99s}; forward {forward_ms:.1f}"
    if parties.documented_alone_ms:
        told += f"; documented way {spread(parties.documented_alone_ms, '.0f')}"
    return LATENCY.row(median(p50s), told, limit=forward_ms + ALLOWED_MS)
