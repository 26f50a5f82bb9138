"""The HTTP service in the rounds of `throughput`: one caller's wait, many callers, sixteen pictures at once.

Its callers send what Infinity's are sent: a JPEG in base64 in JSON, one in each request. The bare forwards,
Infinity and the documented handler are measured by turns with it, in the same run.
"""

from __future__ import annotations

import base64
import json
from statistics import median
from typing import TYPE_CHECKING, Final

from bench import process
from bench.figures import percentile, ratio, spread
from bench.http_client import ask, image_requests, post
from bench.http_server import http_worker
from bench.inputs import TEXTS
from bench.model import check_vector
from bench.plan import CALLERS
from bench.report import Measure


if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.http_client import Answer, Load
    from bench.plan import Plan
    from bench.report import Row

OVER_HTTP, RAW = "this worker over HTTP", "this worker over HTTP, raw bodies"
PICTURES: Final = 16  # in one request
ALLOWED_MS: Final = 5.0

TEXT: Final = Measure(
    "http_text_p50", "over HTTP, one caller's wait for a text, at most bare batch-1 forward + 5 ms", "ms"
)
IMAGE: Final = Measure(
    "http_image_p50", "over HTTP, one caller's wait for a JPEG, at most bare forward + decoding + 5 ms", "ms"
)
VS_CEILING: Final = Measure(
    "http_vs_ceiling",
    f"{CALLERS} callers over HTTP: images/s against open_clip's bare forward",
    "×",
    0.92,
    at_least=True,
)
VS_INFINITY: Final = Measure(
    "http_vs_infinity", "the same against Infinity (--peer infinity)", "×", 3.5, at_least=True
)
VS_DOCUMENTED: Final = Measure(
    "http_batch_16",
    f"a request of {PICTURES} images against {PICTURES} jobs of the documented handler, one after another",
    "×",
    8,
    at_least=True,
)
VS_FUNCTION: Final = Measure(
    "http_batch_16_vs_calls", f"the same against {PICTURES} calls of its function: no queue, no HTTP", "×"
)
MEASURES: Final = (TEXT, IMAGE, VS_CEILING, VS_INFINITY, VS_DOCUMENTED, VS_FUNCTION)


class HttpTurns:
    """What the rounds have shown so far."""

    def __init__(self, plan: Plan) -> None:
        encoded = [base64.b64encode(file).decode() for file in plan.pictures]
        items = [{"image_base64": picture} for picture in encoded[:PICTURES]]
        self.plan = plan
        self._texts = [post("/v1/embed/text", json.dumps({"text": text}).encode()) for text in TEXTS]
        self._images = image_requests(plan.pictures)
        self._raw = [post("/v1/embed/image", file, "image/jpeg") for file in plan.pictures]
        self._batch = [post("/v1/embed/image-batch", json.dumps({"items": items}).encode())]
        self._text_ms: list[list[float]] = []  # of each round, as all below
        self._image_ms: list[list[float]] = []
        self._batch_ms: list[float] = []
        self._costs = ""

    def turn(self) -> None:
        """Measure the service once."""
        plan, lengths = self.plan, self.plan.lengths
        plan.say(f"  this worker over HTTP, {CALLERS} callers for {lengths.load_s:.0f} s")
        with http_worker(MODEL_PATH=str(plan.folder)) as server:
            ask(server.port, self._images, callers=CALLERS, duration_s=lengths.warm_up_s)
            cpu_s = process.cpu_s(server.pid)
            load = ask(server.port, self._images, callers=CALLERS, duration_s=lengths.load_s)
            self._costs = _costs(load, process.cpu_s(server.pid) - cpu_s)
            self._check(load.answers)
            plan.note(OVER_HTTP, load.per_s(lengths.load_s))
            load = ask(server.port, self._raw, callers=CALLERS, duration_s=lengths.load_s / 2)
            self._check(load.answers)
            plan.note(RAW, load.per_s(lengths.load_s / 2))
            self._image_ms.append(
                _waits_ms(ask(server.port, self._images, callers=1, duration_s=lengths.single_s))
            )
            self._text_ms.append(
                _waits_ms(ask(server.port, self._texts, callers=1, duration_s=lengths.single_s))
            )
            self._batch_ms.append(
                median(_waits_ms(ask(server.port, self._batch, callers=1, duration_s=lengths.single_s)))
            )

    def rows(self, *, documented_ms: Sequence[float]) -> list[Row]:
        """Return the rows that the plan wants; *documented_ms*: of one documented job, by round."""
        rows = [self._text_row(), self._image_row(), *self._rates()]
        if documented_ms:
            each = f"{PICTURES} × {spread(documented_ms, '.0f')} / {spread(self._batch_ms, '.0f')} ms"
            rows.append(VS_DOCUMENTED.row(PICTURES * ratio(documented_ms, self._batch_ms), each))
        call_ms = self.plan.forward_ms("documented_call_ms")
        told = f"{PICTURES} × {spread(call_ms, '.0f')} / {spread(self._batch_ms, '.0f')} ms"
        rows.append(VS_FUNCTION.row(PICTURES * ratio(call_ms, self._batch_ms), told))
        return [row for row in rows if self.plan.wants(row.name)]

    def _text_row(self) -> Row:
        forward_ms, own_ms = map(self.plan.forward_median_ms, ("open_clip_text_1_ms", "own_text_1_ms"))
        told = f"{_told(self._text_ms)}; forward {forward_ms:.1f}, ours {own_ms:.1f}"
        return TEXT.row(_p50(self._text_ms), told, limit=forward_ms + ALLOWED_MS)

    def _image_row(self) -> Row:
        forward_ms, own_ms = map(self.plan.forward_median_ms, ("open_clip_image_1_ms", "own_image_1_ms"))
        decode_ms = self.plan.forward_median_ms("own_decode_ms")
        told = (
            f"{_told(self._image_ms)}; forward {forward_ms:.1f}, ours {own_ms:.1f}; decoding {decode_ms:.1f}"
        )
        return IMAGE.row(_p50(self._image_ms), told, limit=forward_ms + decode_ms + ALLOWED_MS)

    def _rates(self) -> Iterator[Row]:
        per_s, mine = self.plan.jobs_per_s, self.plan.jobs_per_s[OVER_HTTP]
        for party, measure in (("bare forward, batch 32", VS_CEILING), ("Infinity", VS_INFINITY)):
            if party in per_s:
                told = f"{spread(mine)} / {spread(per_s[party])} per second"
                more = f"; raw bodies {spread(per_s[RAW])}; {self._costs}" if measure is VS_CEILING else ""
                yield measure.row(ratio(mine, per_s[party]), told + more)

    def _check(self, answers: Sequence[Answer]) -> None:
        """Hold an answer of each picture against open_clip's vector."""
        for answer in {answer.request: answer for answer in answers}.values():
            check_vector(json.loads(answer.raw)["embedding"], answer.request, self.plan.references)


def _waits_ms(load: Load) -> list[float]:
    return [answer.took_ms for answer in load.answers]


def _costs(load: Load, service_cpu_s: float) -> str:
    p50, p95, p99 = (percentile(_waits_ms(load), p) for p in (50, 95, 99))
    service_ms, callers_ms = (cpu_s / len(load.answers) * 1e3 for cpu_s in (service_cpu_s, load.cpu_s))
    return (
        f"wait p50 {p50:.0f}, p95 {p95:.0f}, p99 {p99:.0f} ms; "
        f"CPU a request: service {service_ms:.1f}, callers {callers_ms:.2f} ms"
    )


def _p50(rounds: Sequence[Sequence[float]]) -> float:
    return median(percentile(waits, 50) for waits in rounds)


def _told(rounds: Sequence[Sequence[float]]) -> str:
    p50, p99 = (spread([percentile(waits, p) for waits in rounds]) for p in (50, 99))
    return f"p50 {p50}, p99 {p99}"
