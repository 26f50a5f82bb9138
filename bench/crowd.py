"""The HTTP service with more callers than places, every tenth of whose requests is bad.

What must hold: each answer has the status that its request deserves, or 429 where there was no place, after
which its caller waits as he is told; no answer is 5xx, none hangs, and memory stays.
"""

from __future__ import annotations

import base64
import json
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from bench import plan as plans
from bench import process
from bench.figures import percentile
from bench.http_client import OK, ask, drive, image_requests, post
from bench.http_server import http_worker
from bench.report import Measure


if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.http_client import Load
    from bench.plan import Plan
    from bench.report import Row

CALLERS: Final = 200
TENTH: Final = 10
LOOK_S: Final = 0.25
BUSY: Final = (429, 503)

FREE: Final = Measure("http_free_engine", "requests/s over HTTP with a free engine", "/s")
WRONG: Final = Measure(
    "crowd_wrong", f"{CALLERS} callers over HTTP for 60 s: answers with a status they should not have", "", 0
)
WAIT: Final = Measure("crowd_p99", "the wait of those who got a vector, p99", "ms")
GROWTH: Final = Measure(
    "crowd_growth", "growth of memory from the first tenth of that time to the end", "%", 5
)
MEASURES: Final = (WRONG, WAIT, GROWTH)


@dataclass(frozen=True, slots=True)
class Sent:
    """A request, and the status it deserves."""

    raw: bytes
    status: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What callers saw: answers by status, those that were wrong, and the waits for vectors."""

    statuses: Counter[int]
    wrong: tuple[str, ...]
    waits_ms: tuple[float, ...]


def requests(files: Sequence[bytes]) -> list[Sent]:
    """Return requests to be sent in turn: pictures in base64 and bare, texts, and every tenth bad."""
    text = _sent("text", {"text": "a red circle"}, OK)
    encoded = [Sent(request, OK) for request in image_requests(files)]
    bare = [Sent(post("/v1/embed/image", file, "image/jpeg"), OK) for file in files]
    good = cycle(each for pair in zip(encoded, bare, strict=True) for each in (*pair, text))
    return [each for fault in _bad(files[0]) for each in (*islice(good, TENTH - 1), fault)]


def judge(sent: Sequence[Sent], load: Load) -> Seen:
    """Return what *load* showed of the requests *sent*."""
    wrong = tuple(
        f"{answer.status} instead of {sent[answer.request].status}: {answer.raw[:200]!r}"
        for answer in load.answers
        if answer.status not in (sent[answer.request].status, *BUSY)
    )
    waits_ms = tuple(answer.took_ms for answer in load.answers if answer.status == OK)
    return Seen(Counter(answer.status for answer in load.answers), wrong, waits_ms)


def measure(plan: Plan) -> list[Row]:
    """Return the rows of the crowd."""
    sent, lengths = requests(plan.pictures), plan.lengths
    raw = [each.raw for each in sent]
    with http_worker(MODEL_PATH=str(plan.folder)) as server:
        drive(server.port, raw, callers=CALLERS, duration_s=lengths.warm_up_s)
        with _resident_mb(server.pid) as resident:
            load = drive(server.port, raw, callers=CALLERS, duration_s=lengths.crowd_s)
        seen = judge(sent, load)
    tenth = len(resident) // TENTH
    first_mb, last_mb = median(resident[tenth : 2 * tenth]), median(resident[-tenth:])
    told_mb = f"{first_mb:.0f} to {last_mb:.0f} MB, most {max(resident):.0f}"
    rows = [
        WRONG.row(len(seen.wrong), "; ".join((_told(seen.statuses), *seen.wrong[:1]))),
        WAIT.row(percentile(seen.waits_ms, 99), _waits(seen, load)),
        GROWTH.row((last_mb / first_mb - 1) * 100, told_mb),
    ]
    return [row for row in rows if plan.wants(row.name)]


def _told(statuses: Counter[int]) -> str:
    return ", ".join(f"{number:,} × {status}" for status, number in sorted(statuses.items()))


def _waits(seen: Seen, load: Load) -> str:
    p50, p95 = (percentile(seen.waits_ms, p) for p in (50, 95))
    cpu_ms = load.cpu_s / len(load.answers) * 1e3
    longest = max(seen.waits_ms)
    return f"p50 {p50:.0f}, p95 {p95:.0f}, longest {longest:.0f} ms; callers' CPU a request {cpu_ms:.2f} ms"


def measure_free(plan: Plan) -> list[Row]:
    """Return the row of requests a second with an engine that costs nothing."""
    text = [_sent("text", {"text": "a red circle"}, OK).raw]
    seconds, callers = plan.lengths.free_s, plans.CALLERS
    with http_worker(("-m", "bench.free")) as server:
        ask(server.port, text, callers=callers, duration_s=1.0)
        cpu_s = process.cpu_s(server.pid)
        busy = ask(server.port, text, callers=callers, duration_s=seconds)
        cpu_ms = (process.cpu_s(server.pid) - cpu_s) / len(busy.answers) * 1e3
        images = ask(server.port, image_requests(plan.pictures), callers=callers, duration_s=seconds)
        alone = ask(server.port, text, callers=1, duration_s=1.0)
    waits_ms = [answer.took_ms for answer in alone.answers]
    told = (
        f"{callers} callers with texts; with JPEGs in base64 {images.per_s(seconds):.0f}/s; one caller waits "
        f"{percentile(waits_ms, 50):.2f}, p99 {percentile(waits_ms, 99):.2f} ms; CPU a request: "
        f"service {cpu_ms:.2f}, callers {busy.cpu_s / len(busy.answers) * 1e3:.3f} ms"
    )
    return [FREE.row(busy.per_s(seconds), told)]


def _bad(file: bytes) -> list[Sent]:
    """Return a request of each kind that must be refused."""
    picture = base64.b64encode(file).decode()
    return [
        _sent("image", {"image_base64": f"{picture[:-8]}*"}, 422),
        _sent("image", {"image_base64": base64.b64encode(b"GIF89a" + bytes(2000)).decode()}, 422),
        _sent("image", {"image_base64": base64.b64encode(file[: len(file) // 2]).decode()}, 422),
        _sent("text", {"text": "a", "colour": "red"}, 422),
        _sent("text", {"text": "a " * 300, "truncate": False}, 422),
        _sent("image", {"image_url": "https://127.0.0.1/a.jpg"}, 422),
        _sent("image", {"image_base64": picture, "model": "another"}, 422),
        Sent(post("/v1/embed/text", b'{"text": '), 400),
        Sent(post("/v1/nowhere", b"{}"), 404),
    ]


def _sent(route: str, body: dict[str, Any], status: int) -> Sent:
    return Sent(post(f"/v1/embed/{route}", json.dumps(body).encode()), status)


@contextmanager
def _resident_mb(pid: int) -> Iterator[list[float]]:
    """Fill a list with the memory of process *pid*, four times a second, until the block ends."""
    samples: list[float] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_S):
            samples.append(process.rss_bytes(pid) / 1e6)

    thread = threading.Thread(target=look, name="memory", daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()
