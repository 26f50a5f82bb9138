"""A process that is run for a job, and ends with it: bounded in time, with all that it started.

It leads a session of its own, so that what it starts ends with it and a signal for the worker is not its.
Its output comes through a pipe that is closed here, whoever else still holds it; and an end that the system
does not grant, as for a process that hangs in a volume which is away, is waited for no longer than LAST_S.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple


if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

LAST_S: Final = 2.0  # after SIGKILL

log = logging.getLogger(__name__)


class Child(NamedTuple):
    """A process and what it writes to stdout."""

    process: asyncio.subprocess.Process
    output: asyncio.StreamReader


@asynccontextmanager
async def running(
    *command: str,
    environment: Mapping[str, str],
    folder: Path | None = None,
    stderr: int | None = None,
    grace_s: float = 0.0,
) -> AsyncIterator[Child]:
    """Run *command* in the block; at its end the process is sent SIGTERM, and SIGKILL after *grace_s*.

    Raises OSError if it cannot be started.
    """
    reading, writing = os.pipe()
    output = asyncio.StreamReader()
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(output), os.fdopen(reading, "rb", buffering=0)
    )
    try:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                env=environment,
                cwd=folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing,
                stderr=stderr,
                start_new_session=True,
            )
        finally:
            os.close(writing)
        try:
            yield Child(process, output)
        finally:
            await _end(process, grace_s)
    finally:
        pipe.close()


async def _end(process: asyncio.subprocess.Process, grace_s: float) -> None:
    try:
        if process.returncode is None and grace_s:
            process.terminate()
            await _wait(process, grace_s)
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    await _wait(process, LAST_S)
    if process.returncode is None:
        log.error("process %d does not end when it is killed: it is left to itself", process.pid)


async def _wait(process: asyncio.subprocess.Process, timeout_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await process.wait()
