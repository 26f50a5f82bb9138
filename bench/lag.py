"""The worker with a watch on its event loop: how late a task wakes that asked for 5 milliseconds.

The watch starts with the first job. When the worker has stopped, one line of JSON says how late the wake-ups
of the load were: `event loop lag: {"p50_ms": …, "p99_ms": …, "max_ms": …, "wake_ups": …}`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

from bench.figures import percentile


if TYPE_CHECKING:
    from embedding.serve.queue import Handler
    from embedding.serve.start import Worker

INTERVAL_S: Final = 0.005
SETTLING_S: Final = 2.0  # the first batches warm caches and grow pools
MARK: Final = "event loop lag: "


class Watch:
    """Records how late an event loop wakes its tasks."""

    def __init__(self) -> None:
        self.late_ms: list[float] = []
        self._task: asyncio.Task[None] | None = None

    def around(self, handler: Handler) -> Handler:
        """Return *handler*, which starts the watch with its first job."""

        async def watched(job: dict[str, Any]) -> Any:
            if self._task is None:
                self._task = asyncio.create_task(self._look())
            return await handler(job)

        return watched

    def report(self) -> str:
        """Return the line that says how late wake-ups were."""
        figures = {f"p{p}_ms": round(percentile(self.late_ms, p), 2) for p in (50, 99)}
        figures |= {"max_ms": round(max(self.late_ms), 2), "wake_ups": len(self.late_ms)}
        return f"{MARK}{json.dumps(figures)}"

    async def _look(self) -> None:
        await asyncio.sleep(SETTLING_S)
        while True:
            asked_s = time.perf_counter()
            await asyncio.sleep(INTERVAL_S)
            self.late_ms.append((time.perf_counter() - asked_s - INTERVAL_S) * 1e3)


def main() -> int:
    """Run the worker; return its exit status."""
    from embedding.serve.start import start  # noqa: PLC0415  not in the heartbeat, where it is spawned

    watch, worker = Watch(), cast("Worker", start())
    status = replace(worker, handler=watch.around(worker.handler)).run()
    print(watch.report(), flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
