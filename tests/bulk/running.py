"""Bulk runs as a user starts them, in processes of their own, against a loopback RunPod in any mood."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.loopback import DROPPED, LOST_REPLY, TRUNCATED_JSON, Fault, LoopbackRunPod
from tests.loopback.faults import Faults


ROOT = Path(__file__).parents[2]
SECRET = "bulk:" + "s" * 40
HANDLER = (sys.executable, str(ROOT / "handler.py"))
WORKER = {
    "RUNPOD_SERVERLESS": "1",
    "ALLOW_DEMO_MODEL": "1",
    "EMBEDDING_HMAC_SECRET": SECRET,
    "PYTHONPATH": str(ROOT),
}
TO_CALLERS = (Fault(500), Fault(502), Fault(503), Fault(429))
TO_WORKERS = {
    "job-take": (Fault(500), DROPPED, TRUNCATED_JSON),
    "job-done": (Fault(500), Fault(503), DROPPED, LOST_REPLY),
}


class RandomFaults(Faults):
    """Fails *share* of all calls of callers and workers."""

    def __init__(self, share, seed) -> None:
        super().__init__()
        self._share, self._random = share, random.Random(seed)

    def next(self, route):
        """Return a fault for this call, or None."""
        if self._random.random() >= self._share or route == "ping":
            return super().next(route)
        self.used[route] += 1
        return self._random.choice(TO_WORKERS.get(route, TO_CALLERS))


@contextmanager
def endpoint(*, share=0.0, done_delay_s=0.0, duplicates=False, seed=1, worker=WORKER):
    """Give a platform with a demo worker; *share* of calls fail, results are held, jobs come twice."""
    platform = LoopbackRunPod(hold_s=1.0)
    platform._faults = platform._store._faults = RandomFaults(share, seed)
    with platform, platform.worker(HANDLER, env=worker, cwd=ROOT) as running:
        running.wait_ready(60)
        platform.delay_done(done_delay_s)
        over = threading.Event()
        thread = threading.Thread(target=duplicate, args=(platform, over, seed), daemon=True)
        platform.duplicated = 0
        if duplicates:
            thread.start()
        try:
            yield platform
        finally:
            over.set()
            if duplicates:
                thread.join()


def duplicate(platform, over, seed):
    """Deliver some job once more, ten times a second, until *over*."""
    chosen = random.Random(seed)
    while not over.wait(0.1):
        jobs = list(platform._store.jobs)[-200:]
        if jobs:
            platform.duplicate(chosen.choice(jobs))
            platform.duplicated += 1


def environment(platform=None, **more):
    """Return what a bulk run sees: who it is, where the platform is, nothing else of ours."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RUNPOD_", "CLIP_", "MODEL_", "EMBEDDING_", "WORKER_"))
    }
    reach = {}
    if platform is not None:
        reach = {
            "RUNPOD_API_KEY": platform.api_key,
            "RUNPOD_ENDPOINT_BASE_URL": platform.base_url,
            "EMBEDDING_HMAC_SECRET": SECRET,
        }
    return kept | {"PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1", "ALLOW_DEMO_MODEL": "1"} | reach | more


def start(*arguments, cwd, env, **more):
    """Start `python -m embedding embed`; *more* is for Popen."""
    return subprocess.Popen(
        [sys.executable, "-m", "embedding", "embed", *map(str, arguments)],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **more,
    )


def finish(process, timeout_s=120):
    """Return exit status and output of a run that was started."""
    output, _ = process.communicate(timeout=timeout_s)
    return process.returncode, output


def parts_of(out):
    """Return how many parts of *out* are written."""
    return len(list(Path(f"{out}.parts").glob("[0-9]*.parquet")))


def kill_after(process, out, parts, *, more_s=0.0, timeout_s=120):
    """Kill *process* a moment after so many parts are there; return whether it was still running."""
    until_s = time.monotonic() + timeout_s
    while parts_of(out) < parts and process.poll() is None and time.monotonic() < until_s:
        time.sleep(0.01)
    time.sleep(more_s)
    was_running = process.poll() is None
    process.kill()
    process.communicate()
    return was_running


class Memory:
    """What a process holds, looked at twice a second."""

    def __init__(self, process) -> None:
        self.mb = []
        self._process = process
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self):
        path = Path(f"/proc/{self._process.pid}/status")
        while self._process.poll() is None:
            with suppress(OSError, ValueError, KeyError):
                fields = dict(line.split(":", 1) for line in path.read_text().splitlines())
                self.mb.append(int(fields["VmRSS"].split()[0]) / 1024)
            time.sleep(0.5)

    def quarters(self):
        """Return the median of each quarter of the run."""
        size = max(1, len(self.mb) // 4)
        return [sorted(self.mb[i * size : (i + 1) * size])[size // 2] for i in range(4)] if self.mb else []

    def told(self):
        """Return it in words."""
        quarters = ", ".join(f"{mb:.0f}" for mb in self.quarters())
        return f"memory by quarters {quarters}, at most {max(self.mb):.0f} MB"


def faults_told(platform):
    """Return what was done to the calls of a run, in words."""
    used = Counter(platform.faults_used())
    return f"failed calls {dict(used)}, duplicates {platform.duplicated}"
