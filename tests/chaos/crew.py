"""The workers: each place is kept filled, as the platform does, whatever becomes of who filled it."""

from __future__ import annotations

import re
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bench.process import rss_bytes
from tests.chaos.worker import DEVICE_LOST, INJECTED
from tests.loopback import WorkerDied


if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.loopback import LoopbackRunPod, Worker

ROOT = Path(__file__).parents[2]
LOOK_S = 0.1
READY_S = 60.0
STOP_S = 30.0
# What an exit status must be, by what was done to the worker. A spare one had not begun when the run ended.
STATUS = {"killed": -signal.SIGKILL, "spare": -signal.SIGKILL, "stopped": 0, "device lost": 0, "served": 0}
MOST_ABOVE_START_BYTES = 700 << 20  # what a worker may need more than when it takes its first job
MOST_GROWTH = 1.1  # from the first quarter of a worker's life to the last, where it lived long enough
LONG_LIFE = 200  # looks at its memory
TRACEBACK = "Traceback (most recent call last)"
_FAULT = re.compile(r'chaos \{"fault": "([^"]+)", "at_s": ([0-9.]+)\}')


@dataclass(slots=True, eq=False)
class Member:
    """One worker: its place, what was done to it, its memory since it took its first job, and its log."""

    worker: Worker
    place: int
    fate: str = ""
    is_ready: bool = False
    rss: list[int] = field(default_factory=list)
    log: str = ""

    def told(self) -> Iterator[tuple[str, float]]:
        """Yield the faults that it told of, and when."""
        for fault, at_s in _FAULT.findall(self.log):
            yield fault, float(at_s)

    def growth(self) -> tuple[int, int]:
        """Return the most memory in the first and in the last quarter of what was seen, in bytes."""
        quarter = max(len(self.rss) // 4, 1)
        return max(self.rss[:quarter]), max(self.rss[-quarter:])

    def faults(self, secrets: Sequence[str]) -> Iterator[str]:
        """Yield what was wrong with it, as lines; *secrets* must not be in its log."""
        status = self.worker.returncode
        if status != STATUS.get(self.fate):
            fate = self.fate or "left alone"
            yield f"{self.worker.id} ({fate}) ended with status {status}: {self.log[-300:]!r}"
        for line in self.log.splitlines():
            if TRACEBACK in line and INJECTED not in line:
                yield f"{self.worker.id} wrote a traceback of its own: {line[:1000]}"
        for secret in secrets:
            if secret in self.log:
                yield f"{self.worker.id} wrote what nobody may see: {secret[:4]}…"
        if self.rss and max(self.rss) - self.rss[0] > MOST_ABOVE_START_BYTES:
            yield f"{self.worker.id} grew from {self.rss[0] >> 20} to {max(self.rss) >> 20} MiB"
        if len(self.rss) >= LONG_LIFE and self.growth()[1] > MOST_GROWTH * self.growth()[0]:
            yield f"{self.worker.id} did not stop growing: {[each >> 20 for each in self.growth()]} MiB"


class Crew:
    """*places* workers of *platform*, from entry to exit; `members` are all that there ever were."""

    def __init__(
        self, platform: LoopbackRunPod, places: int, *, port: int, seed: int, env: Mapping[str, str]
    ) -> None:
        self.members: list[Member] = []
        self._platform = platform
        self._command = [sys.executable, "-m", "tests.chaos.worker", str(port)]
        self._seed = seed
        self._env = env
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._fill, args=(place,)) for place in range(places)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def idle_hands(self) -> list[Member]:
        """Return the members that serve and have not been disturbed, oldest first."""
        return [
            member
            for member in list(self.members)
            if member.is_ready and not member.fate and member.worker.returncode is None
        ]

    def wait_full(self, timeout_s: float) -> None:
        """Return when every place has a worker that takes jobs, or after *timeout_s* at the latest."""
        deadline_s = time.monotonic() + timeout_s
        while len(self.idle_hands()) < len(self._threads) and time.monotonic() < deadline_s:
            time.sleep(LOOK_S)

    def renew(self) -> None:
        """Stop every member that serves: what it holds and cannot answer is delivered to another."""
        for member in self.idle_hands():
            member.fate = "stopped"
            member.worker.terminate()

    def _fill(self, place: int) -> None:
        while not self._over.is_set():
            command = [*self._command, str(self._seed + len(self.members))]
            with self._platform.worker(command, env=self._env, cwd=ROOT) as worker:
                member = Member(worker, place)
                self.members.append(member)
                self._attend(member)
                member.log = worker.log()
            if not member.is_ready and member.fate != "spare":
                return  # what does not start once will not start the next time: the run says why

    def _attend(self, member: Member) -> None:
        """Return when *member* has ended; when the run is over, end it."""
        member.is_ready = self._has_started(member)
        while member.is_ready and member.worker.returncode is None and not self._over.wait(LOOK_S):
            with suppress(OSError):  # it ends just now
                member.rss.append(rss_bytes(member.worker.pid))
        if member.is_ready and member.worker.returncode is None:
            member.fate = member.fate or "served"
            if not self._leaves_by_itself(member):
                member.worker.terminate()
            with suppress(TimeoutError):
                member.worker.wait(STOP_S)
        if member.worker.returncode is None:
            member.worker.kill()

    def _leaves_by_itself(self, member: Member) -> bool:
        """Return whether it has been told to leave, or must: a signal could meet it without its handlers."""
        return member.fate == "stopped" or DEVICE_LOST in member.worker.log()

    def _has_started(self, member: Member) -> bool:
        deadline_s = time.monotonic() + READY_S
        while time.monotonic() < deadline_s:
            if self._over.is_set():
                member.fate = "spare"
                return False
            try:
                member.worker.wait_ready(LOOK_S)
            except TimeoutError:
                continue
            except WorkerDied:
                return False
            return True
        return False
