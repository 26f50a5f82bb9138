"""A worker without a model: it gives back its input, later or broken if the input asks for it."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from embedding.serve.sdk import import_sdk


async def echo(job: dict[str, Any]) -> Any:
    """Return the job's input, or what its keys ask for; print a line when stopped."""
    job_input = job.get("input") or {}
    try:
        await asyncio.sleep(job_input.get("sleep_s", 0))
    except asyncio.CancelledError:
        print(f"stopped {job['id']}", flush=True)
        raise
    if "number" in job_input:
        return {"number": float(job_input["number"])}
    if "openai_route" in job_input:
        return [{"echo": job_input}]
    if "error" in job_input:
        return {"error": job_input["error"], "error_code": "TOLD_TO"}
    return {"echo": job.get("input")}


if __name__ == "__main__":
    concurrency = int(os.environ.get("ECHO_CONCURRENCY", "64"))
    import_sdk().serverless.start({"handler": echo, "concurrency_modifier": lambda _current: concurrency})
