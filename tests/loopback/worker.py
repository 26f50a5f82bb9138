"""A worker process: started as on the platform, watched, and gone for certain at the end.

It runs in a session of its own, because the SDK's heartbeat is a child process that outlives a killed parent:
whatever way the worker ends, its whole process group is killed before its id can be used again.
Its environment is the parent's without any RUNPOD_* variable, plus what the platform sets;
HOME is empty, because credentials found below it would override the key given here.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from .jobs import WorkerState

KILL_TIMEOUT_S = 10.0
TAIL_CHARS = 4_000
LOG_LOOK_S = 0.02


class WorkerDied(RuntimeError):
    """The worker's process ended before it asked for a first job; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What to start: a command, its environment, its working directory and its folder for log and HOME."""

    command: Sequence[str]
    environment: Mapping[str, str]
    cwd: Path | None
    folder: Path


def worker_environment(base_url: str, endpoint_id: str, worker_id: str, api_key: str) -> dict[str, str]:
    """Return the parent's environment with its RUNPOD_* replaced by those of this platform."""
    endpoint = f"{base_url}/{endpoint_id}"
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("RUNPOD_") and name != "HOME"
    }
    return kept | {
        "RUNPOD_WEBHOOK_GET_JOB": f"{endpoint}/job-take/$ID?gpu=LOOPBACK",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{endpoint}/job-done/$RUNPOD_POD_ID/$ID?gpu=LOOPBACK",
        "RUNPOD_WEBHOOK_POST_STREAM": f"{endpoint}/job-stream/$RUNPOD_POD_ID/$ID?gpu=LOOPBACK",
        "RUNPOD_WEBHOOK_PING": f"{endpoint}/ping/$RUNPOD_POD_ID",
        "RUNPOD_AI_API_KEY": api_key,
        "RUNPOD_POD_ID": worker_id,
        "RUNPOD_ENDPOINT_ID": endpoint_id,
        "RUNPOD_PING_INTERVAL": "1000",
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
        "RUNPOD_LOG_LEVEL": "INFO",
        "NO_PROXY": "127.0.0.1",
        "PYTHONUNBUFFERED": "1",
    }


class Worker:
    """A running worker; `id` is its RUNPOD_POD_ID, `pid` its process and process group."""

    def __init__(
        self,
        launch: Launch,
        state: WorkerState,
        *,
        on_exit: Callable[[], None],
        on_kill: Callable[[], object],
    ) -> None:
        self.id = state.id
        self._state = state
        self._on_exit = on_exit
        self._on_kill = on_kill
        self._log_path = launch.folder / "worker.log"
        self._process = _start(launch, self._log_path)
        self.pid = self._process.pid
        self._signalling = threading.Lock()
        self._exited = threading.Event()
        threading.Thread(target=self._watch, name=f"watch {self.id}", daemon=True).start()

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; None while the process runs."""
        return self._process.returncode if self._exited.is_set() else None

    def wait_ready(self, timeout_s: float = 30.0) -> None:
        """Return when the worker has asked for a job; raise WorkerDied or TimeoutError with its log's end."""
        if not self._state.settled.wait(timeout_s):
            raise TimeoutError(f"{self.id} took no job within {timeout_s} s; its log ends:\n{self.tail()}")
        if not self._state.has_polled:
            self.wait()
            raise WorkerDied(f"{self.id} ended with status {self.returncode}; its log ends:\n{self.tail()}")

    def terminate(self) -> None:
        """Send SIGTERM to the worker's first process, as a stopping container does."""
        self.signal(signal.SIGTERM)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the worker's first process, if it still runs."""
        self._signal(os.kill, number)

    def kill(self) -> None:
        """Kill the process group, wait until it is gone, and let the platform redeliver its jobs."""
        self._signal(os.killpg, signal.SIGKILL)
        self.wait(KILL_TIMEOUT_S)
        self._on_kill()

    def wait(self, timeout_s: float = 30.0) -> int:
        """Return the exit status, or raise TimeoutError after *timeout_s* seconds."""
        if not self._exited.wait(timeout_s):
            raise TimeoutError(f"{self.id} still runs after {timeout_s} s; its log ends:\n{self.tail()}")
        return self._process.returncode

    def log(self) -> str:
        """Return all that the worker has written to stdout and stderr."""
        return self._log_path.read_text(encoding="utf-8", errors="replace")

    def wait_log(self, text: str, timeout_s: float = 10.0) -> None:
        """Return when the worker has written *text*, or raise TimeoutError with the end of its log."""
        deadline_s = time.monotonic() + timeout_s
        while text not in self.log():
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{self.id} never wrote {text!r}; its log ends:\n{self.tail()}")
            time.sleep(LOG_LOOK_S)

    def tail(self) -> str:
        """Return the end of the log."""
        return self.log()[-TAIL_CHARS:]

    def _signal(self, send: Callable[[int, int], None], number: int) -> None:
        with self._signalling:
            if self._process.returncode is None:
                send(self.pid, number)

    def _watch(self) -> None:
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with self._signalling:
            with suppress(ProcessLookupError):  # until it is reaped, no other group can have this id
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        self._on_exit()
        self._exited.set()


def _start(launch: Launch, log_path: Path) -> subprocess.Popen[bytes]:
    home = launch.folder / "home"
    home.mkdir(parents=True)
    with log_path.open("wb") as log:
        return subprocess.Popen(
            launch.command,
            env={"HOME": str(home), **launch.environment},
            cwd=launch.cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
