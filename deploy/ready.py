"""How the workers of an endpoint stand, and the wait for one that runs what was applied.

States are those of `GET /serverless/ID/workers`; `isStale` is RunPod's word for a worker of an older release.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from deploy.errors import DeployError


if TYPE_CHECKING:
    from deploy.api import Api, Json
    from deploy.context import Context, Deadline

READY: Final = frozenset({"RUNNING", "IDLE"})
STATES: Final = ("running", "idle", "initializing", "throttled", "unhealthy")


@dataclass(frozen=True, slots=True)
class Standing:
    """The workers of an endpoint: counts by state, how many are ready and new, how many older."""

    endpoint_id: str
    counts: dict[str, int]
    fresh_and_ready: int
    stale: int

    @property
    def line(self) -> str:
        """Return the counts as words."""
        told = [f"{self.counts[state]} {state}" for state in STATES if self.counts.get(state)]
        older = [f"{self.stale} of an older release"] if self.stale else []
        return "workers: " + (", ".join(told + older) or "none yet")

    @property
    def hint(self) -> str | None:
        """Return what a state that lasts means; None where there is nothing to say."""
        if self.counts.get("unhealthy"):
            return (
                "unhealthy workers fail to start, most often by a crash at start: their logs are in RunPod's "
                f"console under Serverless, {self.endpoint_id}, Workers; the last line says why"
            )
        if self.counts.get("throttled"):
            return (
                "throttled workers wait for capacity: add pools to gpu.pools, leave data_centers open, "
                "or try another data center"
            )
        if self.counts.get("initializing"):
            return (
                "workers are still starting: a large image takes minutes the first time; give --wait-s more"
            )
        return None


def standing(api: Api, endpoint_id: str, *, once: bool = False) -> Standing:
    """Return how the workers stand now; raises DeployError."""
    answer = api.workers(endpoint_id, once=once)
    workers = answer["workers"]
    return Standing(
        endpoint_id,
        {state: answer["summary"].get(state, 0) for state in STATES},
        fresh_and_ready=sum(each["status"] in READY and not each["isStale"] for each in workers),
        stale=sum(bool(each["isStale"]) for each in workers),
    )


def glance(api: Api, endpoint_id: str, *, once: bool = False) -> Standing | None:
    """Return how the workers stand; None where RunPod does not tell, which fails nothing."""
    try:
        return standing(api, endpoint_id, once=once)
    except DeployError:
        return None


def rollout_line(releases: Json) -> str:
    """Return how far the newest release has come, as words."""
    rollout = releases["rollout"]
    if not rollout["workersTotal"]:
        return "no workers"
    return f"{rollout['workersOnLatest']} of {rollout['workersTotal']} workers on the newest release"


def wait_ready(context: Context, endpoint_id: str, deadline: Deadline) -> None:
    """Wait until a worker of the newest release is ready; raises DeployError when the time is over.

    Where RunPod does not tell its workers, the smoke test's job is what waits.
    """
    with context.console.waiting("waiting for a worker of this release") as tell:
        while True:
            try:
                now = standing(context.api, endpoint_id)
                rollout = rollout_line(context.api.releases(endpoint_id))
            except DeployError as failed:
                context.console.warn(f"whether a worker is ready is not known: {failed.message}")
                return
            tell(f"{now.line}; {rollout}")
            if now.fresh_and_ready:
                return
            if not deadline.left_s:
                raise DeployError(f"no worker was ready in {context.wait_s:.0f} s: {now.line}", hint=now.hint)
            time.sleep(min(context.poll_s, deadline.left_s))
