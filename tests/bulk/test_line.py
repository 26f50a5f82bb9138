"""When jobs of a long queue are asked after, against a queue whose ends are known."""

from __future__ import annotations

import asyncio
import heapq
from itertools import repeat

import pytest

from embedding.client.bulk.line import LEAST, LONGEST_S, Line
from embedding.client.serverless import pauses_s


class Clock:
    """Seconds that pass when all tasks of the event loop wait for them."""

    def __init__(self, now_s=0.0) -> None:
        self.now_s = now_s
        self._sleepers = []

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds):
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now_s + seconds, id(woken), woken))
        await woken

    async def run(self, *works):
        """Run *works* to their end."""
        tasks = [asyncio.ensure_future(work) for work in works]
        while not all(task.done() for task in tasks):
            for _ in range(9):  # until everybody sleeps
                await asyncio.sleep(0)
            if self._sleepers:
                self.now_s, _, woken = heapq.heappop(self._sleepers)
                woken.set_result(None)
        await asyncio.gather(*tasks)


class Queue:
    """Jobs that end every *job_s* seconds, or *slow_s* the first ones, as *lanes* workers run them."""

    def __init__(self, job_s, lanes=1, slow_s=None) -> None:
        self.clock = Clock()
        self.questions, self.late_s = 0, []
        self._job_s, self._slow_s, self._lanes, self._free_s = job_s, slow_s or job_s, lanes, [0.0] * lanes
        self._left = self._sent = 0

    def ends_s(self):
        """Return when a job that is sent now will end."""
        self._sent += 1
        job_s = self._slow_s if self._sent <= 20 else self._job_s
        began_s = max(self.clock(), heapq.heappop(self._free_s))
        heapq.heappush(self._free_s, began_s + job_s * self._lanes)
        return self._free_s[-1] if self._lanes == 1 else began_s + job_s * self._lanes

    def run(self, jobs, window):
        """Keep *window* jobs in the queue, and ask after each as its place says, until *jobs* have ended."""
        self._left, line = jobs, Line(self.clock, self.clock.sleep)

        async def send():
            while self._left:
                self._left -= 1
                place, sent_s, ends_s = line.join(pauses_s()), self.clock(), self.ends_s()
                await place.pause()
                self.questions += 1
                while self.clock() < ends_s:
                    await place.pause()
                    self.questions += 1
                self.late_s.append(self.clock() - ends_s)
                place.over({"delayTime": 0, "executionTime": (ends_s - sent_s) * 1e3})

        asyncio.run(self.clock.run(*(send() for _ in range(window))))
        return self.clock()


@pytest.mark.parametrize(
    ("job_s", "lanes", "most_questions"),
    [(0.02, 1, 1.5), (0.4, 1, 2), (2.0, 1, 4), (0.02, 8, 3), (0.4, 8, 4)],
)
def test_few_questions_soon_after_the_end(job_s, lanes, most_questions):
    """In a full queue a job is asked after few times, most are heard of soon, and none costs time."""
    queue = Queue(job_s, lanes)
    took_s = queue.run(600, 32)

    assert queue.questions < most_questions * 600
    assert sorted(queue.late_s)[570] <= max(0.2, 5 * job_s)
    assert took_s < 1.05 * 600 * job_s + 1


def test_a_queue_that_has_become_faster():
    """Jobs that were expected late, because the first were slow, are asked after when the line has moved."""
    queue = Queue(0.2, slow_s=2.0)
    took_s = queue.run(60, 60)

    assert took_s < 20 * 2.0 + 40 * 0.2 + 6


def answered(line, count):
    """Let *count* jobs of half a second each end, one after another."""
    for number in range(1, count + 1):
        line.end(number, 0.5 * number)


@pytest.mark.parametrize(("ended", "is_known"), [(LEAST - 1, False), (LEAST, True), (LEAST + 1, True)])
def test_too_few_ends_say_nothing(ended, is_known):
    """Until some jobs have ended, pauses are those of a lone job, so a cold start is not asked in vain."""
    clock = Clock()
    line = Line(clock, clock.sleep)
    answered(line, ended)
    line._sent = 20
    asyncio.run(clock.run(line.join(repeat(0.1)).pause()))

    assert clock() == pytest.approx(10.75 if is_known else 0.1)


@pytest.mark.parametrize(
    ("number", "now_s", "asked_s"),
    [(20, 2.0, [10.25, 10.75]), (1000, 2.0, [2 + LONGEST_S, 2 + 2 * LONGEST_S]), (5, 9.0, [9.1, 9.6])],
    ids=["due later", "far behind", "overdue"],
)
def test_pauses(number, now_s, asked_s):
    """The first question comes when the job is due, the next after as long as one job takes, both bounded."""
    clock = Clock(now_s)
    line, asked = Line(clock, clock.sleep), []
    answered(line, 10)
    line._sent = number - 1

    async def ask_twice():
        place = line.join(repeat(0.1))
        for _ in range(2):
            await place.pause()
            asked.append(clock())

    asyncio.run(clock.run(ask_twice()))

    assert asked == pytest.approx(asked_s)


@pytest.mark.parametrize("standing", [{}, {"delayTime": 5}, {"delayTime": "5", "executionTime": None}])
def test_a_platform_that_tells_no_times(standing):
    """A standing without times teaches nothing."""
    line = Line()
    for _ in range(10):
        line.join(pauses_s()).over(standing)

    assert line.fit is None


@pytest.mark.parametrize("took_ms", [1e308, 1e305, 2**63, 86_400_000, -1e308, -5])
def test_a_platform_that_tells_absurd_times(took_ms):
    """A job has ended after it was sent and before now, whatever else its standing says."""
    clock = Clock(10.0)
    line = Line(clock)
    places = [line.join(pauses_s()) for _ in range(8)]
    clock.now_s = 20.0
    for place in places:
        place.over({"delayTime": took_ms, "executionTime": took_ms})

    assert line.fit.first_s == pytest.approx(20.0 if took_ms > 0 else 10.0)
    assert line.fit.slope_s == 0
