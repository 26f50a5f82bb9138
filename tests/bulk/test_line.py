"""When jobs of a long queue are asked after, against a queue whose ends are known."""

from __future__ import annotations

import heapq
from itertools import islice, repeat

import pytest

from embedding.client.bulk.line import LEAST, LONGEST_S, Line
from embedding.client.serverless import _pauses_s


class Queue:
    """Jobs that end every *job_s* seconds, *lanes* of them run at once; and the clock of their caller."""

    def __init__(self, job_s, lanes=1) -> None:
        self.now_s, self.questions, self.late_s = 0.0, 0, []
        self._job_s, self._lanes, self._free_s = job_s, lanes, [0.0] * lanes

    def ends_s(self):
        """Return when a job that is sent now will end."""
        began_s = max(self.now_s, heapq.heappop(self._free_s))
        heapq.heappush(self._free_s, began_s + self._job_s * self._lanes)
        return began_s + self._job_s * self._lanes

    def run(self, jobs, window):
        """Keep *window* jobs in the queue, and ask after each as its place says, until *jobs* have ended."""
        line, asking = Line(lambda: self.now_s), []

        def send(number):
            place, ends_s = line.join(), self.ends_s()
            pauses_s = place.pauses_s(_pauses_s())
            heapq.heappush(asking, (self.now_s + next(pauses_s), number, place, ends_s, pauses_s))

        for number in range(window):
            send(number)
        sent = window
        while asking:
            self.now_s, number, place, ends_s, pauses_s = heapq.heappop(asking)
            self.questions += 1
            if ends_s > self.now_s:
                heapq.heappush(asking, (self.now_s + next(pauses_s), number, place, ends_s, pauses_s))
                continue
            self.late_s.append(self.now_s - ends_s)
            place.leave({"delayTime": 0, "executionTime": (ends_s - place.sent_s) * 1e3})
            if sent < jobs:
                send(sent)
                sent += 1


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("job_s", [0.02, 0.4])
def test_about_one_question_for_each_job_soon_after_its_end(job_s, lanes):
    """In a full queue a job is asked after once or twice, most are heard of soon, and none costs time."""
    queue = Queue(job_s, lanes)
    queue.run(2000, 64)

    assert queue.questions < 2.5 * 2000
    assert sorted(queue.late_s)[1900] <= max(0.2, 4 * job_s)
    assert queue.now_s < 1.05 * 2000 * job_s


def answered(line, count):
    """Let *count* jobs of half a second each end, one after another."""
    for number in range(1, count + 1):
        line.end(number, 0.5 * number)


@pytest.mark.parametrize(("ended", "is_known"), [(LEAST - 1, False), (LEAST, True), (LEAST + 1, True)])
def test_too_few_ends_say_nothing(ended, is_known):
    """Until some jobs have ended, pauses are those of a lone job, so a cold start is not asked in vain."""
    line = Line(lambda: 0.0)
    answered(line, ended)
    place = line.join()

    assert (next(place.pauses_s(repeat(0.1))) != 0.1) is is_known


@pytest.mark.parametrize(
    ("number", "clock_s", "pauses_s"),
    [
        (20, 2.0, [8.0, 8.0]),
        (1000, 2.0, [LONGEST_S, LONGEST_S]),
        (5, 9.0, [0.5, 0.5]),
    ],
    ids=["due later", "far behind", "overdue"],
)
def test_pauses(number, clock_s, pauses_s):
    """The first question comes when the job is due, the next after as long as one job takes, both bounded."""
    line = Line(lambda: clock_s)
    answered(line, 10)
    line._sent = number - 1

    assert list(islice(line.join().pauses_s(repeat(0.1)), 2)) == pytest.approx(pauses_s)


@pytest.mark.parametrize("standing", [{}, {"delayTime": 5}, {"delayTime": "5", "executionTime": None}])
def test_a_platform_that_tells_no_times(standing):
    """A standing without times teaches nothing."""
    line = Line(lambda: 0.0)
    for _ in range(10):
        line.join().leave(standing)

    assert line.due(11) is None
