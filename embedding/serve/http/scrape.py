"""What `/metrics` reads when it is asked: the service's state, its room, the engine, and memory.

The engine counts for itself, in plain numbers, and knows nothing of Prometheus. Memory is the device's: on a
GPU what torch holds of it, on a CPU what the process does; that of a container is limited by its cgroup.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

import embedding
from embedding.serve.http.state import State


if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from embedding.actions import Actions
    from embedding.model.engine import Engine, Kind, Tally
    from embedding.serve.http.gate import Gate
    from embedding.serve.http.service import Service

FORWARD_ITEMS: Final = (1, 2, 4, 8, 16, 32, 64)
KINDS: Final[tuple[Kind, ...]] = ("image", "text")
MEMORY_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")


class ServiceCollector(Collector):
    """Reads *service* anew at every scrape, in any thread."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """Yield what can be told; the engine and the device once the model is loaded."""
        current = self._service.state()
        state = GaugeMetricFamily("clip_state", "1 for what the service is doing.", labels=["state"])
        for each in State:
            state.add_metric([each], float(each is current))
        yield state
        yield from _room(self._service.gate)
        actions = self._service.actions
        yield _build(actions)
        if actions is not None:
            yield from _engine(actions.pipeline.engine)
            yield from _cache(actions.pipeline.counters())
            yield from _memory(actions.served.device)

    def describe(self) -> list[Metric]:
        """Return nothing: the names are ours, so none needs to be checked by a scrape at the start."""
        return []


def _build(actions: Actions | None) -> Metric:
    told = {"version": embedding.__version__}
    if actions is not None:
        served = actions.served
        told |= {
            "model": served.model,
            "model_name": served.model_name,
            "pretrained": served.pretrained,
            "device": served.device,
            "fingerprint": served.fingerprint,
        }
    return InfoMetricFamily("clip_build", "The worker, and the model that it serves.", value=told)


def _room(gate: Gate) -> Iterator[Metric]:
    yield GaugeMetricFamily("clip_requests_running", "Requests that run.", gate.running)
    yield GaugeMetricFamily(
        "clip_requests_running_limit", "Requests that may run; one more is OVERLOADED.", gate.max_running
    )
    yield GaugeMetricFamily("clip_request_body_bytes", "Bytes held for requests' bodies.", gate.held_bytes)
    yield GaugeMetricFamily("clip_request_body_limit_bytes", "Bytes that may be held.", gate.max_held_bytes)


def _engine(engine: Engine[Any]) -> Iterator[Metric]:
    yield GaugeMetricFamily("clip_decoding_items", "Pictures being decoded, or about to be.", engine.coming)
    yield GaugeMetricFamily("clip_queue_items", "Items that wait for the device.", engine.depth())
    yield GaugeMetricFamily("clip_queue_limit_items", "Items that may wait.", engine.max_waiting)
    tally = engine.tally()
    busy = CounterMetricFamily(
        "clip_engine_busy_seconds", "Time that each lane has spent on forwards.", labels=["lane"]
    )
    for lane, busy_s in enumerate(tally.busy_s):
        busy.add_metric([str(lane)], busy_s)
    yield busy
    yield CounterMetricFamily(
        "clip_failed_forwards", "Forwards that failed; their halves ran again.", tally.failed_forwards
    )
    yield _forwards(tally)


def _forwards(tally: Tally) -> Metric:
    family = HistogramMetricFamily(
        "clip_forward_items", "Items in each forward; failed ones count too.", labels=["kind"]
    )
    for kind in KINDS:
        sizes = {size: count for (each, size), count in tally.forwards.items() if each == kind}
        below = [
            (floatToGoString(bound), float(sum(count for size, count in sizes.items() if size <= bound)))
            for bound in (*FORWARD_ITEMS, float("inf"))
        ]
        family.add_metric([kind], below, sum_value=sum(size * count for size, count in sizes.items()))
    return family


def _cache(counters: dict[str, int]) -> Iterator[Metric]:
    """Yield what is kept and found, where CACHE_MAX_BYTES lets vectors be kept."""
    if "cache_hits" not in counters:
        return
    lookups = CounterMetricFamily(
        "clip_cache_lookups", "Items looked up: hit, kept or being made for another; miss.", labels=["result"]
    )
    lookups.add_metric(["hit"], counters["cache_hits"])
    lookups.add_metric(["miss"], counters["cache_misses"])
    yield lookups
    yield GaugeMetricFamily("clip_cache_entries", "Vectors kept.", counters["cache_entries"])
    yield GaugeMetricFamily("clip_cache_bytes", "Memory that they take.", counters["cache_bytes"])


def _memory(device: str) -> Iterator[Metric]:
    """Yield what is held of the memory of *device*, where that can be read, and how much there is."""
    held = GaugeMetricFamily(
        "clip_device_memory_bytes",
        "Memory held: of a GPU allocated and reserved by torch, of a CPU resident.",
        labels=["state"],
    )
    if device != "cpu":
        import torch  # noqa: PLC0415  loaded by now, and not before the ports are bound

        held.add_metric(["allocated"], torch.cuda.memory_allocated(device))
        held.add_metric(["reserved"], torch.cuda.memory_reserved(device))
        limit_bytes = float(torch.cuda.get_device_properties(device).total_memory)
    else:
        page_bytes = os.sysconf("SC_PAGE_SIZE")
        limit_bytes = min(os.sysconf("SC_PHYS_PAGES") * page_bytes, _container_bytes())
        statm = Path("/proc/self/statm")
        if statm.exists():
            held.add_metric(["resident"], int(statm.read_text(encoding="ascii").split()[1]) * page_bytes)
    yield held
    yield GaugeMetricFamily("clip_device_memory_limit_bytes", "Memory that there is.", limit_bytes)


def _container_bytes() -> float:
    try:
        return int(MEMORY_LIMIT.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such file, or "max"
        return float("inf")
