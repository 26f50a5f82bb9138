"""Life-cycle events for the program that started this worker and reads its stdout.

With WORKER_EVENTS=1 stdout carries one JSON object a line and nothing else. It is told in this order, and
`finish` exactly once, as the last:

    connection connected, worker initializing, loading, ready, (working, [text], ready)*, cleaning_up,
    finish completed|failed

A start that fails goes from where it is to `finish`. Everything else that is printed, by libraries, by child
processes and by C code too, goes to stderr: the events have a copy of file descriptor 1, and 1 becomes 2.

A reader that pauses or goes away costs the worker nothing. One small thread writes; jobs only count, so under
load `working` is told once, until no job has run for QUIET_S, and nothing piles up while a pipe is full. At
the end the reader gets FLUSH_S to take what is left. Whatever ends the process passes here, os._exit
included, by which the HTTP service and RunPod's SDK leave; only a process that is killed outright, by the
kernel for memory say, has no `finish`, and its pipe just ends.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import logging
import os
import select
import signal
import sys
import threading
import time
from contextlib import contextmanager, nullcontext
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from embedding.settings import wants_events


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from types import FrameType

log = logging.getLogger(__name__)

QUIET_S: Final = 0.1  # so long no job, and the worker is ready again
FLUSH_S: Final = 2.0
STDOUT, STDERR, FIRST_FREE = 1, 2, 3

CONNECTED: Final = {"event": "connection", "status": "connected"}
MESSAGES: Final = {
    "initializing": "reading the settings",
    "loading": "loading the model",
    "ready": "waiting for work",
    "working": "working",
    "cleaning_up": "ending",
}


class Tell:
    """What the worker tells of its life. This one tells nobody, and is what a worker has without events."""

    def loading(self) -> None:
        """Tell that nothing refuses the start any more, and the model is being loaded."""

    def ready(self, *, is_session: bool) -> None:
        """Tell that jobs can run: those of a session until it is stopped, or else the one there is."""

    def job(self) -> AbstractContextManager[None]:
        """Return what counts a job from its beginning to its end."""
        return _UNCOUNTED

    def answer(self, answer: Any) -> None:
        """Tell the result of a one-off run, a text or plain JSON; a session's are its callers' alone."""

    def close(self, status: int | str | None) -> None:
        """Tell that the process ends with the exit *status*, the first time; nothing is told after it."""

    def until_the_end(self, run: Callable[[], int]) -> int:
        """Return what *run* returns, the exit status, and tell it; a SystemExit that it raises counts too."""
        try:
            status = run()
        except SystemExit as leaving:
            self.close(leaving.code)
            raise
        self.close(status)
        return status


SILENT: Final = Tell()
_UNCOUNTED: Final = nullcontext()


def open_events() -> Tell:
    """Return what tells the worker's life: on stdout, which is then for nothing else, if WORKER_EVENTS is on.

    To be called before anything is printed, and before libraries are imported that may print.
    """
    if not wants_events():
        return SILENT
    events = Events(_take_stdout())
    events.catch_every_end()
    return events


class Events(Tell):
    """Writes events to *descriptor*, which it owns; the first two are told when it is made.

    Jobs are counted by one thread, an event loop's. Everything else may be called from any, and in a signal's
    handler: SimpleQueue is made for that.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._is_heard = True
        self._lines: SimpleQueue[tuple[dict[str, str], ...]] = SimpleQueue()  # (): look at the jobs
        self._is_woken = False  # a () is on its way
        self._begun, self._running = 0, 0
        self._begun_told = 0
        self._is_busy = False  # `working` is what was told last
        self._is_ready = self._is_session = self._is_closed = False
        self._end_s = 0.0
        self._lines.put((CONNECTED, _worker("initializing")))
        self._thread = threading.Thread(target=self._write_lines, name="events", daemon=True)
        self._thread.start()

    def loading(self) -> None:
        """Tell `loading`."""
        self._lines.put((_worker("loading"),))

    def ready(self, *, is_session: bool) -> None:
        """Tell `ready`, and look at jobs from now on."""
        self._is_session = is_session
        self._lines.put((_worker("ready"),))
        self._is_ready = True

    @contextmanager
    def job(self) -> Iterator[None]:
        """Count a job, and wake the thread if it has told of none that runs."""
        self._begun += 1
        self._running += 1
        if not (self._is_busy or self._is_woken):
            self._is_woken = True
            self._lines.put(())
        try:
            yield
        finally:
            self._running -= 1

    def answer(self, answer: Any) -> None:
        """Tell *answer* as `text` unless this is a session."""
        if not self._is_session:
            content = answer if isinstance(answer, str) else json.dumps(answer)
            self._lines.put(({"event": "text", "content": content},))

    def close(self, status: int | str | None) -> None:
        """Tell `cleaning_up` where the worker was ready, then `finish`, and wait FLUSH_S for the reader.

        What was never ready has failed, whatever the exit status. Whoever calls second waits as long.
        """
        if not self._is_closed:
            self._is_closed = True
            self._end_s = time.monotonic() + FLUSH_S
            finish = {"event": "finish", "status": "completed" if self._is_ready and not status else "failed"}
            self._lines.put((_worker("cleaning_up"), finish) if self._is_ready else (finish,))
        self._thread.join(max(0.0, self._end_s - time.monotonic()))

    def catch_every_end(self) -> None:
        """See to it that the end is told however the process comes to it, and by this process alone."""
        leave = os._exit

        def close_and_leave(status: int) -> None:
            self.close(status)
            leave(status)

        os._exit = close_and_leave  # type: ignore[assignment]
        atexit.register(self.close, 1)  # who ends without a word has failed
        os.register_at_fork(after_in_child=self._let_go)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)  # until the transport has its own

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Tell the end and die by the signal: a session's is what it was told to do."""
        self.close(None if self._is_ready and self._is_session else number)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    def _let_go(self) -> None:
        """Be silent in a forked child, which would hold the reader's pipe open."""
        if not self._is_closed:
            self._is_closed = True
            os.close(self._descriptor)

    def _write_lines(self) -> None:
        while True:
            try:
                lines = self._lines.get(timeout=QUIET_S if self._is_busy else None)
            except Empty:
                self._after_a_while()
                continue
            self._is_woken = False
            if not lines:
                self._tell_working()
            for line in lines:
                self._catch_up(line)
                self._write(line)
                if line["event"] == "finish":
                    return

    def _after_a_while(self) -> None:
        """Tell `ready` if no job has begun since the last look, and none runs."""
        if self._begun == self._begun_told and self._running == 0:
            self._tell_ready()
        self._tell_working()

    def _tell_working(self) -> None:
        if self._begun != self._begun_told:
            self._begun_told = self._begun
            if not self._is_busy:
                self._is_busy = True
                self._write(_worker("working"))

    def _tell_ready(self) -> None:
        self._is_busy = False  # from here on a job wakes this thread
        self._write(_worker("ready"))

    def _catch_up(self, line: dict[str, str]) -> None:
        """Tell what the jobs have done so far before a *line* that comes after it."""
        is_ending = line.get("status") == "cleaning_up"
        if is_ending or line["event"] == "text":
            self._tell_working()
        if is_ending and self._is_busy and self._running == 0:
            self._tell_ready()

    def _write(self, line: dict[str, str]) -> None:
        """Write one line whole; after a failure nobody listens any more."""
        rest = f"{json.dumps(line, separators=(',', ':'))}\n".encode()
        while rest and self._is_heard:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # the reader's end made it so; both ends of a socket share that
                select.select([], [self._descriptor], [])
            except OSError as fault:
                self._is_heard = False
                log.warning("nobody reads the events any more: %s", fault.strerror)


def _worker(status: str) -> dict[str, str]:
    return {"event": "worker", "status": status, "message": MESSAGES[status]}


def _take_stdout() -> int:
    """Return a private copy of stdout, and let all that is printed go to stderr.

    What of stdin, stdout and stderr is closed leads nowhere, so that no file takes its place.
    """
    while (nowhere := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(nowhere)
    private = fcntl.fcntl(STDOUT, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE)
    os.dup2(STDERR, STDOUT)
    if sys.stdout is not None:
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    return private
