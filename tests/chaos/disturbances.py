"""What is done to the platform and its workers, and when: a seeded plan on the clock of jobs that have ended.

Counting jobs rather than seconds gives a slow machine the same disturbances. The worker that came first is
spared, so that one of them shows what a whole run does to its memory.
"""

from __future__ import annotations

import random
import signal
from collections import Counter
from typing import TYPE_CHECKING

from tests.loopback import DROPPED, LOST_REPLY, TRUNCATED_JSON, WRONG_CONTENT_TYPE, Fault


if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.crew import Crew, Member
    from tests.loopback import LoopbackRunPod

# One of these for so many jobs.
KILLS, STOPS, LOSSES, DUPLICATES, FAULTS = 100, 400, 400, 40, 12
FIRST, LAST = 0.1, 0.8  # of the run: what comes later may find no more jobs to disturb
PLATFORM_FAULTS = (
    ("job-done", Fault(500)),
    ("job-done", Fault(503)),
    ("job-done", DROPPED),
    ("job-done", LOST_REPLY),
    ("job-take", Fault(500)),
    ("job-take", DROPPED),
    ("job-take", TRUNCATED_JSON),
    ("job-take", WRONG_CONTENT_TYPE),
    ("ping", Fault(500)),
    ("job-stop", Fault(500)),
)
BUSY = ("job-take", Fault(429))  # a worker then waits five seconds, so there are few
BUSY_EVERY = 15


class Disturber:
    """Carries out the plan of *seed* for *jobs* jobs; `done` counts what was done, by its name.

    *latest* tells the id of a job that probably runs.
    """

    def __init__(
        self, platform: LoopbackRunPod, crew: Crew, *, seed: int, jobs: int, latest: Callable[[], str | None]
    ) -> None:
        self.done: Counter[str] = Counter()
        self._platform = platform
        self._crew = crew
        self._latest = latest
        self._random = random.Random(seed)
        self._plan = self._make_plan(jobs)
        self._acts: dict[str, Callable[[], bool]] = {
            "kill": lambda: self._strike("killed", lambda member: member.worker.kill()),
            "stop": lambda: self._strike("stopped", lambda member: member.worker.terminate()),
            "device loss": lambda: self._strike(
                "device lost", lambda member: member.worker.signal(signal.SIGUSR1)
            ),
            "duplicate": self._duplicate,
            "platform fault": self._fail,
        }

    def act(self, ended: int) -> None:
        """Do what is due when *ended* jobs have ended; what finds nobody to do it to stays due."""
        due = [each for each in self._plan if each[0] <= ended]
        for each in due:
            if self._acts[each[1]]():
                self.done[each[1]] += 1
                self._plan.remove(each)

    def told(self) -> str:
        """Return what was done so far, in one line."""
        return ", ".join(f"{name} {count}" for name, count in sorted(self.done.items())) or "no harm yet"

    def _make_plan(self, jobs: int) -> list[tuple[int, str]]:
        plan = []
        shares = {"kill": KILLS, "stop": STOPS, "device loss": LOSSES, "duplicate": DUPLICATES}
        for name, every in (shares | {"platform fault": FAULTS}).items():
            count = max(jobs // every, name != "stop")
            places = [FIRST + (LAST - FIRST) * (n + self._random.random()) / count for n in range(count)]
            plan += [(int(place * jobs), name) for place in places]
        return sorted(plan)

    def _strike(self, fate: str, strike: Callable[[Member], object]) -> bool:
        victims = [member for member in self._crew.idle_hands() if member.place > 0]
        if not victims:
            return False
        victim = self._random.choice(victims)
        victim.fate = fate
        strike(victim)
        return True

    def _duplicate(self) -> bool:
        job_id = self._latest()
        if job_id is None:
            return False
        self._platform.duplicate(job_id)
        return True

    def _fail(self) -> bool:
        is_busy = self._random.randrange(BUSY_EVERY) == 0
        self._platform.fail(*(BUSY if is_busy else self._random.choice(PLATFORM_FAULTS)))
        return True
