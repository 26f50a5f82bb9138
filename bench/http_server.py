"""A server in a process of its own, on a port of 127.0.0.1: ready when the block begins, gone at its end."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bench.http_client import HOST
from bench.model import ROOT


if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

READY_S: Final = 120.0
STOP_S: Final = 10.0
LOOK_S: Final = 10.0
_TAIL_CHARS: Final = 2000


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs: its port and process, and its log as a file descriptor."""

    port: int
    pid: int
    log: int


@contextmanager
def serving(argv: Sequence[str], env: Mapping[str, str], *, port: int, ready: str) -> Iterator[Server]:
    """Run *argv* with *env* as its whole environment; the block begins when *ready*, a path, answers 200.

    A RuntimeError of the block, or of the start, tells the end of the log.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(  # noqa: S603  a command of the benchmarks
            argv, stdout=log, stderr=subprocess.STDOUT, env=env, start_new_session=True
        )
        try:
            _wait_ready(process, port, ready)
            yield Server(port, process.pid, log.fileno())
        except (ConnectionError, TimeoutError) as fault:
            why = str(fault) or type(fault).__name__
            raise RuntimeError(f"the server failed ({why}); its log ends: {_tail(log.fileno())}") from fault
        finally:
            _stop(process)


@contextmanager
def http_worker(script: Sequence[str] = ("-m", "embedding", "serve"), **env: str) -> Iterator[Server]:
    """Run the HTTP service, open to all of this machine, with *env* added to its environment."""
    port = free_port()
    shared = {"PATH": os.defpath, "PYTHONPATH": str(ROOT), "HOST": HOST, "PORT": str(port)}
    mode = {"WORKER_MODE": "http", "ALLOW_INSECURE_AUTH": "1", "RUNPOD_LOG_LEVEL": "WARN"}
    with serving((sys.executable, *script), shared | mode | env, port=port, ready="/ping") as server:
        yield server


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server((HOST, 0)) as server:
        port: int = server.getsockname()[1]
    return port


def _wait_ready(process: subprocess.Popen[bytes], port: int, path: str) -> None:
    end_s = time.monotonic() + READY_S
    while time.monotonic() < end_s:
        if process.poll() is not None:
            raise ConnectionError(f"it ended with status {process.returncode} before it was ready")
        if _status(port, path) == http.client.OK:
            return
        time.sleep(0.05)
    raise TimeoutError(f"it was not ready after {READY_S:g} s")


def _status(port: int, path: str) -> int | None:
    connection = http.client.HTTPConnection(HOST, port, timeout=LOOK_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(STOP_S)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _tail(log: int) -> str:
    size = os.fstat(log).st_size
    return os.pread(log, _TAIL_CHARS, max(0, size - _TAIL_CHARS)).decode(errors="replace")
