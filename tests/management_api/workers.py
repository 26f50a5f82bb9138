"""An endpoint's workers over time, its releases, and how far a rollout is.

Each worker passes through the stages of its plan, counted from its birth; a change of what its container is
or where it runs replaces the workers one after the other. Which changes wait for new workers and which reach
the autoscaler at once is the document's; that each change makes a release is read off its example.
A release names fields as the document does, where it does (`template.imageName`, `locations`, `gpuCount`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


ROLLED_OUT = frozenset(
    {"image", "args", "disk", "ports", "env", "registry", "gpu", "cpu", "networkVolumes", "dataCenterIds"}
)
PROMPT_PARTS = ("workers", "scaling", "gpu")
UPSTREAM_NAMES = {
    "image": "template.imageName",
    "env": "template.env",
    "args": "template.dockerArgs",
    "disk": "template.containerDiskInGb",
    "ports": "template.ports",
    "registry": "template.containerRegistryAuthId",
    "dataCenterIds": "locations",
    "gpu.count": "gpuCount",
}
PLACED = frozenset({"RUNNING", "IDLE"})


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of each worker, as (seconds after birth, status), and how fast they are replaced."""

    stages: tuple[tuple[float, str], ...] = ((0.0, "INITIALIZING"), (0.1, "IDLE"))
    rollout_step_s: float = 0.1

    def status(self, age_s: float) -> str:
        """Return the status of a worker that is *age_s* old."""
        return [status for start_s, status in self.stages if start_s <= max(age_s, 0.0)][-1]


@dataclass(slots=True)
class WorkerSpan:
    """One worker: from when to when it is there, and which version of the endpoint it runs."""

    id: str
    version: int
    image: str
    born_s: float
    ends_s: float = float("inf")


@dataclass(slots=True)
class Fleet:
    """The workers and releases of one endpoint; times are of a monotonic clock, in seconds."""

    version: int = 0
    spans: list[WorkerSpan] = field(default_factory=list)
    releases: list[dict[str, Any]] = field(default_factory=list)
    born: int = 0

    def release(self, before: dict[str, Any], after: dict[str, Any], plan: Plan, now_s: float) -> None:
        """Note the first configuration or a change as a release; replace the workers or carry them over."""
        diff = difference(before, after) if self.version else []
        if self.version and not diff:
            return
        self.version += 1
        entry = {"id": f"release{self.version}", "version": self.version, "source": "MANUAL", "diff": diff}
        self.releases.insert(0, entry | {"buildId": None, "createdByUserId": None, "createdAt": timestamp()})
        self.spans = [span for span in self.spans if span.born_s <= now_s < span.ends_s]
        if any(before.get(name) != after.get(name) for name in ROLLED_OUT):
            for place, span in enumerate(list(self.spans), start=1):
                span.ends_s = now_s + place * plan.rollout_step_s
                self._add(after["image"], span.ends_s)
        else:
            for span in self.spans:
                span.version = self.version
        self.scale(after["workers"]["min"], after["image"], now_s, is_floor=True)

    def scale(self, count: int, image: str, now_s: float, *, is_floor: bool = False) -> None:
        """Have *count* workers from now on: new ones are born, surplus ones go; a floor only adds."""
        staying = [span for span in self.spans if span.ends_s == float("inf")]
        for _ in range(count - len(staying)):
            self._add(image, now_s)
        for span in [] if is_floor else staying[count:]:
            span.ends_s = now_s

    def workers(self, endpoint: dict[str, Any], plan: Plan, now_s: float) -> dict[str, Any]:
        """Return what GET .../workers answers."""
        workers = [self._worker(span, endpoint, plan, now_s) for span in self._present(now_s)]
        count = Counter(worker["status"].lower() for worker in workers)
        kinds = ("running", "idle", "initializing", "throttled", "unhealthy")
        summary = {kind: count[kind] for kind in kinds} | {"total": len(workers)}
        return {"workers": workers, "summary": summary, "endpointVersion": self.version}

    def history(self, now_s: float) -> dict[str, Any]:
        """Return what GET .../releases answers."""
        versions = Counter(span.version for span in self._present(now_s))
        latest, total = versions[self.version], versions.total()
        return {
            "endpointVersion": self.version,
            "rollout": {
                "inProgress": latest < total,
                "workersOnLatest": latest,
                "workersTotal": total,
                "percentOnLatest": 100 * latest // total if total else 0,
            },
            "releases": [entry | {"workerCount": versions[entry["version"]]} for entry in self.releases],
        }

    def _present(self, now_s: float) -> list[WorkerSpan]:
        return [span for span in self.spans if span.born_s <= now_s < span.ends_s]

    def _add(self, image: str, born_s: float) -> None:
        self.born += 1
        self.spans.append(WorkerSpan(f"worker{self.born}", self.version, image, born_s))

    def _worker(self, span: WorkerSpan, endpoint: dict[str, Any], plan: Plan, now_s: float) -> dict[str, Any]:
        status = plan.status(now_s - span.born_s)
        is_placed = status in PLACED
        return {
            "id": span.id,
            "status": status,
            "isStale": span.version != self.version,
            "version": span.version,
            "gpuCount": endpoint["gpu"]["count"] if "gpu" in endpoint else 0,
            "image": span.image,
            "uptimeSeconds": int(now_s - span.born_s) if is_placed else None,
            "gpuTypeId": "NVIDIA RTX A4000" if is_placed and "gpu" in endpoint else None,
            "dataCenterId": "EU-RO-1" if is_placed else None,
            "startedAt": timestamp() if is_placed else None,
        }


def difference(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the fields that differ, with their old and new values, under the names that releases use."""
    old, new = _flat(before), _flat(after)
    return [
        {"field": UPSTREAM_NAMES.get(name, name), "old": old.get(name), "new": new.get(name)}
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def timestamp() -> str:
    """Return the time of day as the API writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _flat(endpoint: dict[str, Any]) -> dict[str, Any]:
    parts = {f"{name}.{key}": value for name in PROMPT_PARTS for key, value in endpoint.get(name, {}).items()}
    return {name: value for name, value in endpoint.items() if name not in PROMPT_PARTS} | parts
