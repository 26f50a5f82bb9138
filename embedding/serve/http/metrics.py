"""What `/metrics` counts: requests, items, and where their time went.

Every label has few values, all of them ours: a caller's words never become one. Histograms reach from 1 ms,
a short text on a GPU, to the 120 s that a job may take. What other parts count or hold is read when asked
for: `scrape`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from embedding.contract.requests import Rejected


if TYPE_CHECKING:
    from collections.abc import Sequence

    from prometheus_client.registry import Collector

    from embedding.contract.requests import Item
    from embedding.contract.responses import Embedded

OK: Final = "OK"
ACTIONS: Final = ("image", "batch", "text", "openai")
PHASES: Final = {  # of each kind of item
    "image": ("download", "decode", "queue", "inference", "total"),
    "text": ("decode", "queue", "inference", "total"),
}
UNREAD: Final = "unread"  # the kind of an item whose fields were wrong
BUCKETS_S: Final = (
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
    30.0,
    60.0,
    120.0,
)


class Metrics:
    """The counters of one service, in a registry of their own; counting is the event loop's alone."""

    def __init__(self, collector: Collector) -> None:
        """Begin at zero; what *collector* tells is written beside what is counted here."""
        self._registry = registry = CollectorRegistry()
        registry.register(collector)
        ProcessCollector(namespace="clip", registry=registry)
        self._requests = Counter(
            "clip_requests",
            "Requests that embed, by what they were answered: OK, an error's code, or CLIENT_GONE.",
            ["action", "code", "status"],
            registry=registry,
        )
        self._items = Counter(
            "clip_items",
            "Items whose request was accepted, by what became of each: OK or an error's code.",
            ["kind", "code"],
            registry=registry,
        )
        request_s = Histogram(
            "clip_request_duration_seconds",
            "Requests answered OK: from their headers to their answer.",
            ["action"],
            registry=registry,
            buckets=BUCKETS_S,
        )
        phase_s = Histogram(
            "clip_item_phase_duration_seconds",
            "Items embedded: download, decode (or tokens), queue (for the device), inference, total.",
            ["kind", "phase"],
            registry=registry,
            buckets=BUCKETS_S,
        )
        self._request_s = {action: request_s.labels(action) for action in ACTIONS}
        self._phase_s = {
            kind: [(f"{phase}_ms", phase_s.labels(kind, phase)) for phase in phases]
            for kind, phases in PHASES.items()
        }
        for action in ACTIONS:  # a rate needs a zero to begin from
            self._requests.labels(action, OK, "200")
        for kind in PHASES:
            self._items.labels(kind, OK)

    def count_request(self, action: str, code: str, status: int, took_s: float) -> None:
        """Count a request to the route of *action*, answered with *code* and HTTP *status*."""
        self._requests.labels(action, code, str(status)).inc()
        if code == OK:
            self._request_s[action].observe(took_s)

    def count_items(self, items: Sequence[Item | Rejected], done: Sequence[Embedded | Rejected]) -> None:
        """Count the *items* of a request, in order, by what became of them."""
        for item, outcome in zip(items, done, strict=True):
            kind = UNREAD if isinstance(item, Rejected) else "image" if item.text is None else "text"
            if isinstance(outcome, Rejected):
                self._items.labels(kind, outcome.error.code).inc()
                continue
            self._items.labels(kind, OK).inc()
            for phase_ms, histogram in self._phase_s[kind]:
                took_ms = getattr(outcome.timings, phase_ms)
                if took_ms > 0.0:
                    histogram.observe(took_ms / 1e3)

    def write(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics and their content type: OpenMetrics where *accept* names it, else plain text.

        prometheus_client's own choice raises for a version that is no number.
        """
        if "application/openmetrics-text" in accept:
            return openmetrics.generate_latest(
                self._registry, version="1.0.0"
            ), openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
