"""A program that starts a worker, reads its events from stdout, and holds every line against the grammar.

The worker's stdout is a FIFO, so that it can be started by whatever starts workers in the tests, and so that
the pipe can be filled to the brim: that is a reader who has stopped reading.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from contextlib import contextmanager, suppress


FIELDS = {
    "connection": {"event", "status"},
    "worker": {"event", "status", "message"},
    "text": {"event", "content"},
    "finish": {"event", "status"},
}
# What may follow what; before the first line there is nothing.
NEXT = {
    None: {"connected"},
    "connected": {"initializing", "failed"},
    "initializing": {"loading", "failed"},
    "loading": {"ready", "failed"},
    "ready": {"working", "cleaning_up", "failed"},
    "working": {"text", "ready", "cleaning_up", "failed"},
    "text": {"ready", "cleaning_up", "failed"},
    "cleaning_up": {"completed", "failed"},
    "completed": set(),
    "failed": set(),
}
COMPLETE = re.compile("connected initializing loading ready( working( text)? ready)* cleaning_up completed")


class GrammarError(AssertionError):
    """A line that is no event, or one that may not stand where it stands."""


class Grammar:
    """The events told so far, each checked as it comes."""

    def __init__(self) -> None:
        self.told = []
        self.text = None

    def take(self, line):
        """Add one line. Raise GrammarError if it may not be the next."""
        try:
            event = json.loads(line)
        except ValueError:
            raise GrammarError(f"not JSON: {line!r}") from None
        if not isinstance(event, dict) or set(event) != FIELDS.get(event.get("event")):
            raise GrammarError(f"not an event: {line!r}")
        if not all(isinstance(value, str) for value in event.values()):
            raise GrammarError(f"a field that is no text: {line!r}")
        state = event.get("status", event["event"])
        if state not in NEXT[self.told[-1] if self.told else None]:
            raise GrammarError(f"{state} after {self.told}")
        if state == "completed" and not COMPLETE.fullmatch(" ".join([*self.told, state])):
            raise GrammarError(f"completed after {self.told}")
        self.told.append(state)
        self.text = event.get("content", self.text)


class Controller:
    """Reads the events of a worker whose stdout is `fifo`; `command` makes a worker's command write there."""

    def __init__(self, folder) -> None:
        self.fifo = folder / "events"
        os.mkfifo(self.fifo)
        self._grammar = Grammar()
        self._fault = None
        self._changed = threading.Condition()
        self._reading = threading.Event()
        self._reading.set()
        self._pausing = threading.Event()
        self._is_over = False
        self._descriptor = os.open(self.fifo, os.O_RDWR)  # a reader's, and no end of file before the start
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def command(self, command):
        """Return *command* with its stdout led here, as the same process."""
        return ["bash", "-c", 'exec "$@" > "$0"', str(self.fifo), *command]

    @property
    def told(self):
        """The states told so far, in order."""
        with self._changed:
            self._check()
            return list(self._grammar.told)

    @property
    def text(self):
        """The content of the last text event."""
        return self._grammar.text

    def wait(self, state, *, count=1, timeout_s=30):
        """Return what was told once *state* is there *count* times."""
        with self._changed:
            self._changed.wait_for(lambda: self._fault or self._grammar.told.count(state) >= count, timeout_s)
            self._check()
            assert self._grammar.told.count(state) >= count, f"no {state}: {self._grammar.told}"
            return list(self._grammar.told)

    def wait_last(self, state, *, after=0, timeout_s=30):
        """Return when *state* is what was told last, and more than *after* in all."""

        def is_last():
            return len(self._grammar.told) > after and self._grammar.told[-1] == state

        with self._changed:
            self._changed.wait_for(lambda: self._fault or is_last(), timeout_s)
            self._check()
            assert is_last(), self._grammar.told

    def stop_reading(self):
        """Leave the pipe full, as by a reader that has stopped."""
        self._reading.clear()
        with _nonblocking(self.fifo) as end:
            os.write(end, b"\n")
            self._pausing.wait()
            for size in (4096, 1):
                with suppress(BlockingIOError):
                    while True:
                        os.write(end, b"\n" * size)

    def read_on(self):
        """Read again; the lines that filled the pipe are empty."""
        self._pausing.clear()
        self._reading.set()

    def close(self):
        """Go away: what the worker writes from now on breaks the pipe."""
        if not self._is_over:
            self._is_over = True
            with _nonblocking(self.fifo) as end, suppress(BlockingIOError):
                os.write(end, b"\n")
            self._reading.set()
            self._thread.join(10)

    def _check(self):
        if self._fault:
            raise self._fault

    def _read(self):
        rest = b""
        while True:
            if not self._reading.is_set():
                self._pausing.set()
                self._reading.wait()
            *lines, rest = (rest + os.read(self._descriptor, 1 << 16)).split(b"\n")
            if self._is_over:
                os.close(self._descriptor)
                return
            with self._changed:
                try:
                    for line in filter(None, lines):
                        self._grammar.take(line)
                except GrammarError as fault:
                    self._fault = fault
                self._changed.notify_all()


@contextmanager
def _nonblocking(fifo):
    end = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    try:
        yield end
    finally:
        os.close(end)


def run_to_the_end(command, *, env, cwd, timeout_s=60):
    """Run a worker whose stdout is a pipe; return its exit status, grammar and stderr."""
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, timeout=timeout_s, check=False)
    grammar = Grammar()
    for line in done.stdout.splitlines():
        grammar.take(line)
    return done.returncode, grammar, done.stderr.decode()
