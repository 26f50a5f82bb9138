"""What a run came to: the judgement of every job and worker, and the figures of the table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.figures import percentile
from embedding.serve.loop import ATTEMPTS
from tests.chaos.judge import LEAST_APART, Judge
from tests.chaos.references import nearest
from tests.chaos.worker import DEVICE_LOST


if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from tests.chaos.crew import Crew, Member
    from tests.chaos.images import ImageServer
    from tests.chaos.jobs import Job
    from tests.loopback import JobRecord, JobResult, LoopbackRunPod

# A run in which one of these is missing shows little.
NEEDED = (
    "disturbance: kill",
    "disturbance: device loss",
    "disturbance: duplicate",
    "disturbance: platform fault",
    "jobs delivered again after a worker's end",
    "model: a forward that raises",
    f"model: {DEVICE_LOST}",
    "pictures badly answered",
)


@dataclass(slots=True)
class Outcome:
    """What came of a run: lines of what was wrong, and figures by name."""

    violations: list[str] = field(default_factory=list)
    figures: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sent:
    """One job, and how it stands when the run is over."""

    job: Job
    record: JobRecord
    result: JobResult


def judged(
    sent: Sequence[Sent],
    members: Sequence[Member],
    *,
    vectors: Mapping[str, npt.NDArray[np.float32]],
    secrets: Sequence[str],
) -> Outcome:
    """Return what was wrong with jobs and workers, and how the jobs ended."""
    judge = Judge(vectors, _losses(members), secrets)
    outcome = Outcome()
    for each in sent:
        outcome.violations += judge.faults(each.job, each.record, each.result)
    for member in members:
        outcome.violations += member.faults(secrets)
    posted = [posted for each in sent for posted in each.record.results]
    asked = {each.worker_id for each in posted if each.body.get("stopPod")}
    outcome.violations += [
        f"{worker_id} lost its device and did not ask to be replaced"
        for worker_id in sorted(judge.lost_at_s.keys() - asked)
    ]
    if (apart := nearest(vectors)) < LEAST_APART:
        outcome.violations.append(f"two references are only {apart:.1g} apart: they could be mistaken")
    endings = Counter(_ending(each.result) for each in sent)
    outcome.figures |= {f"jobs: {name}": count for name, count in endings.most_common()}
    outcome.figures["good items that a lost device failed"] = sum(
        judge.excused(each.job, each.record) for each in sent
    )
    outcome.figures["workers that asked to be replaced"] = len(asked)
    return outcome


def counted(
    sent: Sequence[Sent], crew: Crew, platform: LoopbackRunPod, server: ImageServer
) -> dict[str, object]:
    """Return the figures of what was carried and what was borne."""
    records = [each.record for each in sent]
    told = Counter(fault for member in crew.members for fault, _ in member.told())
    return {
        "items asked for": sum(max(len(each.job.outcomes), 1) for each in sent),
        "deliveries": sum(len(record.takes) for record in records),
        "jobs delivered again after a worker's end": sum(record.retries for record in records),
        "results posted": sum(len(record.results) for record in records),
        "posts of a result that failed": sum(len(record.refused) for record in records),
        "results given up by their worker": sum(map(_given_up, records)),
        **{f"platform faults on {route}": count for route, count in sorted(platform.faults_used().items())},
        **{f"model: {fault}": count for fault, count in sorted(told.items())},
        "pictures asked for": server.asked.total(),
        "pictures badly answered": server.asked.total() - server.asked["ok"],
        "workers started": len(crew.members),
        "memory of the worker that was spared": _memory(crew.members),
        "p50, p99 from sent to ended": _latency(records),
    }


def missing(figures: Mapping[str, object]) -> list[str]:
    """Return why the run shows less than it should: what never happened cannot have been borne."""
    return [f"there was no '{name}', so this run shows little" for name in NEEDED if not figures.get(name)]


def _losses(members: Sequence[Member]) -> dict[str, float]:
    """Return when each worker whose device was lost lost it."""
    return {
        member.worker.id: at_s for member in members for fault, at_s in member.told() if fault == DEVICE_LOST
    }


def _ending(result: JobResult) -> str:
    if result.error is not None:
        return f"failed, {result.error.split(':')[0]}"
    if isinstance(result.output, dict) and result.output.get("errors"):
        return "completed, with errors of items"
    return str(result.status).lower()


def _given_up(record: JobRecord) -> bool:
    return any(count >= ATTEMPTS for count in Counter(each.worker_id for each in record.refused).values())


def _latency(records: Sequence[JobRecord]) -> str:
    took_ms = [(record.finished_s - record.queued_s) * 1e3 for record in records if record.finished_s]
    return f"{percentile(took_ms, 50):.0f}, {percentile(took_ms, 99):.0f} ms" if took_ms else "no job ended"


def _memory(members: Sequence[Member]) -> str:
    spared = next((member for member in members if member.place == 0 and member.rss), None)
    if spared is None:
        return "not seen"
    seen = (spared.rss[0], *spared.growth(), max(spared.rss))
    first, early, late, most = (each >> 20 for each in seen)
    return f"{first} MiB at first, {early} in the first quarter, {late} in the last, {most} at most"
