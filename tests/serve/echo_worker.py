"""A worker without a model: `python echo_worker.py LOOP [CONCURRENCY [NAME VALUE]]`: our loop's NAME.

A job's input says what it does:
`sleep_s` sleeps, `raise` raises; the answer holds the input and how many jobs were in flight when it started.
"""

from __future__ import annotations

import asyncio
import json
import sys

from embedding.serve.queue import run_sdk


in_flight = 0


async def handle(job):
    """Do what the job's input says."""
    global in_flight  # noqa: PLW0603  (one worker, one event loop)
    in_flight += 1
    try:
        found = {"input": job["input"], "in_flight": in_flight}
        if "raise" in job["input"]:
            raise ValueError(job["input"]["raise"])
        await asyncio.sleep(job["input"].get("sleep_s", 0))
        return found
    finally:
        in_flight -= 1


if __name__ == "__main__":
    if len(sys.argv) > 3:
        from embedding.serve import loop

        setattr(loop, sys.argv[3], json.loads(sys.argv[4]))
    run_sdk(
        handle,
        concurrency=int(sys.argv[2]) if len(sys.argv) > 2 else 8,
        check_device=lambda: None,
        job_loop=sys.argv[1],
    )
