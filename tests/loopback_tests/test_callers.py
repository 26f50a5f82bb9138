"""Callers in the platform's own process, against a worker of bare HTTP requests and the SDK's."""

from __future__ import annotations

import json
import threading

import pytest

from tests.loopback import LoopbackRunPod
from tests.loopback_tests.wire import ECHO, Wire


BODIES = [json.dumps({"input": {"n": n}}).encode() for n in range(3)]


@pytest.fixture(scope="module")
def unread():
    """A platform that does not read results, and an SDK worker."""
    with LoopbackRunPod(reads_results=False) as platform, platform.worker(ECHO) as worker:
        worker.wait_ready()
        yield platform


class TestDrive:
    def test_sends_each_body_in_turn(self, unread):
        """Callers send the bodies in turn until there are enough jobs, and keep a sample of answers."""
        load = unread.drive(BODIES, callers=2, max_jobs=7)

        assert sorted(done.body for done in load.completions) == [0, 0, 0, 1, 1, 2, 2]
        assert {done.status for done in load.completions} == {"COMPLETED"}
        assert all(done.queued_s < done.finished_s for done in load.completions)
        kept = [done for done in load.completions if done.output is not None]
        assert [json.loads(done.output)["output"] for done in kept] == [{"echo": {"n": kept[0].body}}]
        assert load.cpu_s > 0

    def test_failed_jobs_are_told(self, unread):
        """A job that fails is FAILED though nobody read it, and its answer is kept."""
        body = json.dumps({"input": {"error": "told to fail"}}).encode()
        (done,) = unread.drive([body], callers=1, max_jobs=1).completions

        assert done.status == "FAILED"
        assert b"told to fail" in done.output

    def test_submit_body(self, unread):
        """A single job can be submitted serialised."""
        assert json.loads(unread.wait(unread.submit_body(BODIES[2])).output)["output"] == {"echo": {"n": 2}}

    def test_ends_with_its_time(self, unread):
        """When the time is over, callers send no more, and what a worker has taken is waited for."""
        body = json.dumps({"input": {"sleep_s": 0.3}}).encode()
        load = unread.drive([body], callers=4, duration_s=0.1)

        assert len(load.completions) == 4

    def test_withdraws_what_nobody_took(self):
        """Jobs that no worker took in time are withdrawn and count for nothing."""
        with LoopbackRunPod(hold_s=0.2) as platform:
            wire = Wire(platform)
            with wire.session:
                taker = threading.Timer(0.1, lambda: finish_one(wire))
                taker.start()
                load = platform.drive(BODIES, callers=1, duration_s=0.4)
                taker.join()
                assert wire.take().status_code == 204

        assert [done.body for done in load.completions] == [0]

    def test_a_worker_that_never_answers(self, platform):
        """A job that was taken and never ends is an error after the time allowed."""
        wire = Wire(platform)
        with wire.session:
            taker = threading.Timer(0.1, wire.take)
            taker.start()
            with pytest.raises(TimeoutError):
                platform.drive(BODIES, callers=1, duration_s=0.3, timeout_s=0.3)
            taker.join()


def finish_one(wire):
    """Take one job and answer it."""
    wire.done(wire.take().json()["id"], {"output": 1})
