"""What the platform accepts as JSON, how large it may be, and how a request becomes a job.

Sizes and times are those of the platform's documentation: 10 MB for /run, 20 MB for /runsync,
and /runsync answers after 90 s at the latest unless `?wait=` says otherwise.
Megabytes are read as decimal, the stricter reading.
Whether the limits bind results as well is not documented; observed refusals of large results say they do.
"""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson
from aiohttp import web

from .jobs import Job


if TYPE_CHECKING:
    from collections.abc import Mapping

# Above it orjson reads, in a quarter of the time: what this platform costs, RunPod takes from no worker.
# It makes floats of integers over 64 bits, which are in the small requests of tests alone.
LARGE_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Terms:
    """How long polls and /runsync are held, how large requests and results may be, and who reads results.

    With `reads_results` False a result is not parsed: it is FAILED if it says "error" anywhere as a key, and
    its output is the bytes as they came. That spares a benchmark most of what a result costs the platform.
    """

    hold_s: float
    runsync_wait_s: float
    run_max_bytes: int
    runsync_max_bytes: int
    reads_results: bool = True

    def max_bytes(self, *, is_sync: bool) -> int:
        """Return the limit for requests and results of one kind of job."""
        return self.runsync_max_bytes if is_sync else self.run_max_bytes


def parse_json(raw: bytes) -> Any:
    """Return the value of strict JSON text; raise ValueError for anything else, bare NaN included."""
    if len(raw) > LARGE_BYTES:
        with suppress(ValueError):
            return orjson.loads(raw)
    return json.loads(raw, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def dump_json(value: Any) -> bytes:
    """Return *value* as compact JSON in ASCII: escapes carry even the lone surrogates that UTF-8 cannot."""
    return json.dumps(value, separators=(",", ":")).encode()


def dump_large_json(value: Any) -> bytes:
    """Return *value*, which `parse_json` gave, as compact JSON; in UTF-8 if that can carry it."""
    with suppress(TypeError):
        return orjson.dumps(value)
    return dump_json(value)


def json_response(value: Any, status: int = 200) -> web.Response:
    """Return an answer with *value* as its JSON body."""
    return web.Response(body=dump_large_json(value), status=status, content_type="application/json")


def new_job(request: Mapping[str, Any], terms: Terms, *, is_sync: bool) -> Job:
    """Return the job that a caller's request asks for.

    All keys of the request reach the worker beside `id`, as `policy` and `webhook` do on the platform.
    Raises ValueError where there is no input or the job is over the limit of its kind.
    """
    if request.get("input") is None:
        raise ValueError("input is missing")
    job_id = f"sync-{uuid.uuid4()}-u1" if is_sync else f"{uuid.uuid4()}-u1"
    document = dump_large_json({**request, "id": job_id})
    max_bytes = terms.max_bytes(is_sync=is_sync)
    if len(document) > max_bytes:
        raise ValueError(f"the job has {len(document)} bytes; the limit is {max_bytes}")
    policy = request.get("policy") or {}
    return Job(
        job_id,
        document,
        is_sync=is_sync,
        execution_timeout_s=_seconds(policy.get("executionTimeout")),
        ttl_s=_seconds(policy.get("ttl")),
    )


def _seconds(duration_ms: float | None) -> float | None:
    return None if duration_ms is None else duration_ms / 1e3
