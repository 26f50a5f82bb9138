"""The HTTP service as a process of its own, on a free port of 127.0.0.1, gone for certain at the end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import httpx


ROOT = Path(__file__).parents[3]
SERVE = [sys.executable, "-m", "embedding", "serve"]
OPEN = {"ALLOW_DEMO_MODEL": "1", "ALLOW_INSECURE_AUTH": "1"}
LISTENING = re.compile(r"listening on http://127\.0\.0\.1:(\d+)")
SHARED = {"HOST": "127.0.0.1", "PORT": "0", "OMP_NUM_THREADS": "1", "CLIP_PRECISION": "fp32"}


class HttpProcess:
    """A running service: `port`, `url` and `client` reach it, `log()` is all that it has printed."""

    def __init__(self, process, log_path) -> None:
        self.process = process
        self._log_path = log_path
        (port,) = self.wait_log(LISTENING).groups()
        self.port = int(port)
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx.Client(base_url=self.url, timeout=30)

    def log(self):
        """Return what the service has printed so far."""
        return self._log_path.read_text(encoding="utf-8")

    def wait_log(self, pattern, timeout_s=30):
        """Return the first match of *pattern* in the log, once there is one."""
        return self._wait(lambda: re.search(pattern, self.log()), timeout_s)

    def wait_ready(self, timeout_s=60):
        """Return when `/ping` says that the model is loaded."""
        self._wait(lambda: self.client.get("/ping").status_code == httpx.codes.OK, timeout_s)

    def stop(self, number=signal.SIGTERM, timeout_s=30):
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def _wait(self, look, timeout_s):
        end_s = time.monotonic() + timeout_s
        while not (found := look()):
            assert self.process.poll() is None, f"the service has ended:\n{self.log()}"
            assert time.monotonic() < end_s, f"it took more than {timeout_s} s:\n{self.log()}"
            time.sleep(0.02)
        return found


@contextmanager
def serving(env=OPEN, *, command=SERVE, ready=True):
    """Yield the service with *env* and nothing else of ours in its environment."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "LANG", "LD_LIBRARY_PATH"}}
    with tempfile.TemporaryDirectory() as folder:
        log_path = Path(folder) / "service.log"
        environ = kept | SHARED | {"HOME": folder, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | env
        with log_path.open("wb") as log:
            process = subprocess.Popen(command, env=environ, cwd=folder, stdout=log, stderr=log)
        try:
            service = HttpProcess(process, log_path)
            if ready:
                service.wait_ready()
            yield service
            service.client.close()
        finally:
            process.kill()
            process.wait()
