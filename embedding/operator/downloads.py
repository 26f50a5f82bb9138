"""Models for the volume as a job asks for them: each by a process of its own, told of as it goes.

The process is `python -m embedding download`, so the worker's memory and its speed stay with its jobs:
open_clip alone takes a gigabyte. A job that is cancelled, or out of time, ends it, and so does the worker's
own end; what it fetched stays on the volume. One such job runs at a time. A job that asks for the same
meanwhile, as one does that the platform delivers twice, gets the same answer, and reports nothing.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import embedding
from embedding.errors import DownloadError, InvalidInput, Overloaded, WorkerError
from embedding.operator.child import running


if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

    from embedding.contract.operator import ModelName

    Report = Callable[[dict[str, Any]], Awaitable[None]]

JOB_TIMEOUT_S: Final = 86_400.0  # the longest execution timeout of the platform; that is what ends it before
REPORT_S: Final = 2.0
END_S: Final = 5.0  # to let go of its lease after SIGTERM
STOPPING: Final = "the worker is stopping; what came is kept"
ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # torch's; the others are the jobs'
_ENDED: Final = "the download ended unexpectedly; the worker's log says why, and what came is kept: try again"
_EVENTS: Final = ("progress", "done", "failed")


class Downloads:
    """Downloads to the folder *root*, by processes with *environment*."""

    def __init__(self, root: Path, environment: Mapping[str, str]) -> None:
        self._root = root
        self._environment = {**environment, **ONE_THREAD}
        self._task: asyncio.Task[list[dict[str, Any]]] | None = None
        self._wanted: Sequence[ModelName] = ()
        self._is_stopping = False

    async def run(
        self, models: Sequence[ModelName], report: Report | None, *, timeout_s: float = JOB_TIMEOUT_S
    ) -> list[dict[str, Any]]:
        """Return what became of each of *models*, in order; *report* is awaited with how far they are.

        Nothing is reported after the return. Raises the WorkerError of the first that fails, and Overloaded
        while another job downloads others, after *timeout_s*, or when the worker stops.
        """
        if self._is_stopping:
            raise Overloaded(STOPPING)
        is_first = self._task is None
        if not is_first and models != self._wanted:
            raise Overloaded("another job downloads models on this worker; try again when it is done")
        if self._task is None:
            self._wanted = models
            self._task = asyncio.create_task(self._all(models, report, timeout_s))
            self._task.add_done_callback(self._is_over)
        task = self._task
        try:
            await asyncio.wait([task])
        finally:
            if is_first and not task.done():
                task.cancel()
                await asyncio.wait([task])
        if task.cancelled():
            raise Overloaded(STOPPING if self._is_stopping else "the job that downloaded this was cancelled")
        return task.result()

    def stop(self) -> None:
        """End the download that runs, and begin no other: the worker ends."""
        self._is_stopping = True
        if self._task is not None:
            self._task.cancel()

    def _is_over(self, task: asyncio.Task[list[dict[str, Any]]]) -> None:
        self._task = None
        if not task.cancelled():
            task.exception()  # nobody may be left to ask for it

    async def _all(
        self, models: Sequence[ModelName], report: Report | None, timeout_s: float
    ) -> list[dict[str, Any]]:
        try:
            async with asyncio.timeout(timeout_s):
                return [
                    await self._one(each, place, len(models), report) for place, each in enumerate(models)
                ]
        except TimeoutError:
            raise Overloaded(f"the downloads took longer than {timeout_s:g} s; what came is kept") from None

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
        command = (
            *(sys.executable, "-m", "embedding", "download", "--json", f"--root={self._root}"),
            *(f"--model={model.model}", f"--pretrained={model.pretrained}"),
        )
        folder = Path(embedding.__file__).parents[1]
        async with running(*command, environment=self._environment, folder=folder, grace_s=END_S) as child:
            while line := await _line(child.output):
                if (told := _object(line)).get("event") in _EVENTS:
                    yield told


async def _line(output: asyncio.StreamReader) -> bytes:
    """Return the next line, without what it is if it is too long to be told; empty at the end."""
    try:
        return await output.readline()
    except ValueError:
        return b"\n"


def _object(line: bytes) -> dict[str, Any]:
    """Return the object that *line* is; an empty one if it is something else, or was cut off."""
    try:
        told = json.loads(line)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _fault(last: dict[str, Any], where: str) -> WorkerError:
    if "message" not in last:
        return DownloadError(where + _ENDED, retryable=True)
    kind = InvalidInput if last.get("code") == InvalidInput.code else DownloadError
    return kind(where + last["message"], retryable=last["retryable"])
