"""`python -m embedding download`: what it prints for people, and as one JSON object a line for the worker.

    {"event": "progress", "phase": "waiting|verifying|downloading|preparing", "done_bytes", "total_bytes"}
    {"event": "done", "status": "downloaded|present", "folder", "size_bytes", "fetched_bytes", …}
    {"event": "failed", "code", "message", "retryable"}

The last line is `done` or `failed`. Messages hold no path, since a caller of the worker reads them. For the
worker it is also the first to wait for the processor and the first that the kernel kills for memory, so that
jobs are neither slower nor lost, and it ends when the worker does.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import logging
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from embedding.contract.operator import ModelName
from embedding.errors import DownloadError, InvalidInput, StartupError, WorkerError
from embedding.operator.download import Download


if TYPE_CHECKING:
    from embedding.operator.download import Outcome

TELL_S: Final = 0.5
NAMING: Final = (
    "--model must be a name of open_clip, ViT-B-32 say, with --pretrained for its tag, openai say; "
    "or hf-hub:organisation/name, without --pretrained"
)
STDOUT, STDERR, FIRST_FREE = 1, 2, 3
PR_SET_PDEATHSIG: Final = 1  # of linux/prctl.h
LEAST_PRIORITY: Final = 19
FIRST_TO_DIE: Final = "1000"  # of /proc/PID/oom_score_adj
_MEGABYTE: Final = 1_000_000


def run(model: str, pretrained: str, root: Path, *, as_json: bool) -> int:
    """Download *model* to the folder *root*; return the exit status.

    SIGTERM ends it as Ctrl-C does. Raises StartupError for a fault, unless it is told *as_json*.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.WARNING)
    lines = _Lines() if as_json else _Words()
    if as_json:
        _come_last()
    else:
        logging.getLogger("embedding").setLevel(logging.INFO)
    try:
        lines.done(_download(model, pretrained, root.absolute(), lines))
    except WorkerError as fault:
        if fault.__cause__:
            logging.getLogger("embedding").warning("%s: %s", type(fault.__cause__).__name__, fault.__cause__)
        lines.failed(fault)
        return 1
    return 0


def _come_last() -> None:
    """Let the worker's jobs go first, and end with the worker."""
    os.nice(LEAST_PRIORITY)
    with suppress(OSError):  # another system
        Path("/proc/self/oom_score_adj").write_text(FIRST_TO_DIE, encoding="ascii")
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _download(model: str, pretrained: str, root: Path, lines: _Words) -> Outcome:
    try:
        name = ModelName(model=model, pretrained=pretrained)
        return Download(name.model, name.pretrained, root, lines.progress).run()
    except ValidationError:
        raise InvalidInput(NAMING) from None


class _Words:
    """Tell people. The bar is huggingface_hub's own."""

    def __init__(self) -> None:
        self._phase, self._told_s = "", 0.0

    def progress(self, phase: str, done_bytes: int, total_bytes: int) -> None:
        """Tell of each phase as it begins, and how far it is twice a second."""
        now_s = time.monotonic()
        if phase != self._phase or now_s - self._told_s >= TELL_S:
            self.tell(phase, done_bytes, total_bytes, is_new=phase != self._phase)
            self._phase, self._told_s = phase, now_s

    def tell(self, phase: str, done_bytes: int, total_bytes: int, *, is_new: bool) -> None:
        """Print the phase that begins."""
        if is_new:
            amount = (
                f", {done_bytes / _MEGABYTE:.0f} of {total_bytes / _MEGABYTE:.0f} MB" if total_bytes else ""
            )
            print(f"{phase}{amount}", flush=True)

    def done(self, outcome: Outcome) -> None:
        """Print what became of it."""
        print(
            f"{outcome.folder} is {outcome.status}: {outcome.size_bytes / _MEGABYTE:.0f} MB; "
            f"{outcome.fetched_bytes / _MEGABYTE:.0f} MB came now"
        )

    def failed(self, fault: WorkerError) -> None:
        """Let the command line print the fault as its own."""
        raise StartupError(fault.message)


class _Lines(_Words):
    """Tell the worker, which reads a pipe; if it is gone, the pipe is broken, and this process ends.

    What anything else prints goes to stderr, for the log.
    """

    def __init__(self) -> None:
        super().__init__()
        self._out = os.fdopen(fcntl.fcntl(STDOUT, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE), "w", encoding="utf-8")
        os.dup2(STDERR, STDOUT)

    def tell(self, phase: str, done_bytes: int, total_bytes: int, *, is_new: bool) -> None:  # noqa: ARG002
        """Write how far the phase is."""
        self._write(event="progress", phase=phase, done_bytes=done_bytes, total_bytes=total_bytes)

    def done(self, outcome: Outcome) -> None:
        """Write what became of it."""
        self._write(event="done", **asdict(outcome))

    def failed(self, fault: WorkerError) -> None:
        """Write what went wrong."""
        code = fault.code if isinstance(fault, DownloadError | InvalidInput) else DownloadError.code
        self._write(event="failed", code=code, message=fault.message, retryable=fault.retryable)

    def _write(self, **line: Any) -> None:
        print(json.dumps(line), file=self._out, flush=True)
