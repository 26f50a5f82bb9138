"""Models for the volume as a job asks for them: each by a process of its own, told of as it goes.

The process is `python -m embedding download`, so the worker's memory and its speed stay with its jobs:
open_clip alone takes a gigabyte. A job that is cancelled, or out of time, ends it; what it fetched stays on
the volume. One such job runs at a time.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import embedding
from embedding.errors import DownloadError, InvalidInput, Overloaded, WorkerError


if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

    from embedding.contract.operator import ModelName

    Report = Callable[[dict[str, Any]], Awaitable[None]]

JOB_TIMEOUT_S: Final = 86_400.0  # the longest execution timeout of the platform; that is what ends it before
REPORT_S: Final = 2.0
END_S: Final = 5.0  # to let go of its lease after SIGTERM
_ENDED: Final = "the download ended unexpectedly; the worker's log says why, and what came is kept: try again"


class Downloads:
    """Downloads to the folder *root*, by processes with *environment*."""

    def __init__(self, root: Path, environment: Mapping[str, str]) -> None:
        self._root, self._environment = root, environment
        self._is_busy = False

    async def run(
        self, models: Sequence[ModelName], report: Report | None, *, timeout_s: float = JOB_TIMEOUT_S
    ) -> list[dict[str, Any]]:
        """Return what became of each of *models*, in order; *report* is awaited with how far they are.

        Nothing is reported after the return. Raises the WorkerError of the first that fails, and Overloaded
        while another job downloads, or after *timeout_s*.
        """
        if self._is_busy:
            raise Overloaded("another job downloads models on this worker; try again when it is done")
        self._is_busy = True
        try:
            async with asyncio.timeout(timeout_s):
                return [
                    await self._one(each, place, len(models), report) for place, each in enumerate(models)
                ]
        except TimeoutError:
            raise Overloaded(f"the downloads took longer than {timeout_s:g} s; what came is kept") from None
        finally:
            self._is_busy = False

    async def _one(self, model: ModelName, place: int, count: int, report: Report | None) -> dict[str, Any]:
        last: dict[str, Any] = {}
        phase, reported_s = "", 0.0
        async with aclosing(self._lines(model)) as lines:
            async for last in lines:
                now_s = time.monotonic()
                is_due = last.get("phase") != phase or now_s - reported_s >= REPORT_S
                if report is None or last.get("event") != "progress" or not is_due:
                    continue
                phase, reported_s = last["phase"], now_s
                told = {name: last[name] for name in ("phase", "done_bytes", "total_bytes")}
                await report({"model": str(model), "index": place, "count": count, **told})
        if last.pop("event", None) == "done":
            return {"model": model.model, "pretrained": model.pretrained, **last}
        raise _fault(last, f"models[{place}] ({model}): ")

    async def _lines(self, model: ModelName) -> AsyncGenerator[dict[str, Any], None]:
        """Run the process; yield the objects that it writes."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "embedding", "download", "--json", f"--root={self._root}"),
            *(f"--model={model.model}", f"--pretrained={model.pretrained}"),
            cwd=Path(embedding.__file__).parents[1],
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                yield json.loads(line)
            await process.wait()
        finally:
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """End *process*, if it still runs: by SIGTERM, and by SIGKILL where that is not enough."""
    with suppress(ProcessLookupError, TimeoutError):
        if process.returncode is None:
            process.terminate()
            async with asyncio.timeout(END_S):
                await process.wait()
    with suppress(ProcessLookupError):
        if process.returncode is None:
            process.kill()
            await process.wait()


def _fault(last: dict[str, Any], where: str) -> WorkerError:
    if "message" not in last:
        return DownloadError(where + _ENDED, retryable=True)
    kind = InvalidInput if last.get("code") == InvalidInput.code else DownloadError
    return kind(where + last["message"], retryable=last["retryable"])
