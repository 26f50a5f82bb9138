"""What the HTTP service is doing, as every route and every watcher is told."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """From the first to the last: a service that is draining or has failed never comes back."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"

    @property
    def ping_status(self) -> int:
        """What `/ping` answers; RunPod's load balancer asks for 200 ready, 204 on its way, else neither."""
        return {State.READY: 200, State.LOADING: 204}.get(self, 503)
