"""Our job loop and the SDK's own on one loopback platform: what both do, and what only ours does."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from runpod.serverless.modules import rp_scale

from embedding.serve import loop, queue
from embedding.serve.loop import MAX_TAKEN_BYTES
from embedding.serve.sdk import SDK_VERSION
from tests.loopback import DROPPED, TRUNCATED_JSON, WRONG_CONTENT_TYPE, Fault, LoopbackRunPod
from tests.serve.conftest import ROOT


ECHO_WORKER = str(Path(__file__).with_name("echo_worker.py"))


@contextmanager
def worker_of(platform, job_loop, *options, **env):
    """Run the echo worker with *options*, concurrency first, until the block ends."""
    command = [sys.executable, "-P", ECHO_WORKER, job_loop, *map(str, options or (8,))]
    with platform.worker(command, env={"PYTHONPATH": str(ROOT), **env}) as worker:
        worker.wait_ready()
        yield worker


def wait_until(condition, timeout_s=10.0):
    """Return when *condition* holds."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it never came true"
        time.sleep(0.01)


def is_running(platform, *jobs):
    """Return whether the platform has handed out all *jobs*."""
    return all(platform.result(job).status == "IN_PROGRESS" for job in jobs)


def wait_started(worker, *jobs):
    """Return when the worker has begun all *jobs*."""
    for job in jobs:
        worker.wait_log(f'{{"requestId": "{job}", "message": "Started."')


@pytest.fixture(scope="module", params=["event", "sdk"])
def either(request):
    """Return a platform and a worker, once with each loop."""
    with LoopbackRunPod(hold_s=1.0) as platform, worker_of(platform, request.param) as worker:
        yield platform, worker


@pytest.fixture(scope="module")
def event():
    """Return a platform that holds polls for long, and a worker with our loop."""
    with LoopbackRunPod(hold_s=20.0) as platform, worker_of(platform, "event") as worker:
        yield platform, worker


class TestBothLoops:
    def test_burst(self, either):
        """Of more jobs than there are places, each is answered once with its own answer."""
        platform, _ = either
        jobs = platform.submit_many([{"n": n} for n in range(20)])
        results = platform.wait_all(jobs)

        assert [result.output["input"]["n"] for result in results] == list(range(20))
        assert {len(platform.record(job).results) for job in jobs} == {1}

    def test_never_more_than_the_concurrency(self, either):
        """At most as many jobs run at once as there are places."""
        platform, _ = either
        results = platform.wait_all(platform.submit_many([{"sleep_s": 0.05}] * 16))

        assert max(result.output["in_flight"] for result in results) <= 8

    def test_cancel_of_a_running_job(self, either):
        """A job cancelled while it runs posts no result; the next is served."""
        platform, worker = either
        job = platform.submit({"sleep_s": 60})
        wait_started(worker, job)
        platform.cancel(job)
        worker.wait_log(f'{{"requestId": "{job}", "message": "Job stopped."')

        assert platform.run_sync({}).status == "COMPLETED"
        assert platform.record(job).results == ()

    def test_exception_of_the_handler(self, either):
        """A handler that raises makes its job FAILED, with the exception's text."""
        platform, _ = either

        assert "a reason" in platform.run_sync({"raise": "a reason"}).error

    def test_batch_id_is_logged(self, either):
        """The lines of a job of RunPod's batches name its batch, and only those."""
        platform, worker = either
        platform.inject({"id": "in-batch", "input": {}, "batchId": "b-7"})
        platform.wait("in-batch")
        platform.run_sync({})

        assert '"in-batch", "message": "[batchId=b-7] Started."' in worker.log()
        assert worker.log().count("[batchId=b-7] Started.") == 1

    def test_result_is_sent_again(self, either):
        """A result that the platform could not take is sent again, and counts once."""
        platform, _ = either
        platform.fail("job-done", 500, times=1)
        job = platform.submit({})

        assert platform.wait(job).status == "COMPLETED"
        assert (len(platform.record(job).refused), len(platform.record(job).results)) == (1, 1)

    def test_result_that_is_refused(self, either):
        """A result that the platform refuses is logged as lost, and the worker goes on."""
        platform, worker = either
        platform.fail("job-done", 400, times=1)
        job = platform.submit({})
        worker.wait_log(f'"requestId": "{job}", "message": "Finished."')

        assert platform.record(job).results == ()
        assert platform.run_sync({}).status == "COMPLETED"

    def test_key_is_not_logged(self, either):
        """However polls and posts fail, the platform's key does not reach the log."""
        platform, worker = either
        platform.fail("job-take", 500)
        platform.fail("job-done", 400)
        job = platform.submit({})
        worker.wait_log(f'"requestId": "{job}", "message": "Finished."')

        assert platform.api_key not in worker.log()

    @pytest.mark.parametrize("fault", [500, 400, TRUNCATED_JSON, WRONG_CONTENT_TYPE], ids=str)
    def test_poll_that_fails(self, either, fault):
        """A bad answer to a poll costs no worker: the next job is served."""
        platform, _ = either
        platform.fail("job-take", fault, times=2)

        assert platform.run_sync({}).status == "COMPLETED"


class TestEventLoop:
    def test_more_jobs_than_places_in_a_second(self, event):
        """Places are filled as they become free: 400 short jobs pass 8 places in a few seconds, not in 50."""
        platform, _ = event
        started_s = time.monotonic()
        platform.wait_all(platform.submit_many([{}] * 400))

        assert time.monotonic() - started_s < 10

    @pytest.mark.parametrize(
        ("taken_bytes", "job_bytes", "more"),
        [
            (0, 0, MAX_TAKEN_BYTES),
            (0, MAX_TAKEN_BYTES // 4, 4),
            (1, MAX_TAKEN_BYTES // 4, 3),
            (0, MAX_TAKEN_BYTES - 1, 1),
            (0, MAX_TAKEN_BYTES, 1),
            (0, MAX_TAKEN_BYTES + 1, 1),
            (MAX_TAKEN_BYTES - 1, 10, 1),
            (MAX_TAKEN_BYTES, 10, 0),
            (MAX_TAKEN_BYTES + 1, 10, 0),
        ],
    )
    def test_jobs_that_fit(self, taken_bytes, job_bytes, more):
        """Jobs are asked for while those taken leave room, and at least one: a large one must pass too."""
        assert loop.jobs_that_fit(taken_bytes, job_bytes) == more

    def test_large_jobs_are_taken_few_at_a_time(self):
        """Of jobs that fill the room for bytes no more are taken, however many places are free."""
        large = {"sleep_s": 0.2, "filling": "x" * 2000}
        with (
            LoopbackRunPod(hold_s=1.0) as platform,
            worker_of(platform, "event", 64, "MAX_TAKEN_BYTES", 10_000),
        ):
            platform.run_sync(large)
            results = platform.wait_all(platform.submit_many([large] * 20))

        assert max(result.output["in_flight"] for result in results) in {4, 5}

    def test_job_without_id(self, event):
        """A job that cannot be answered is logged; the others that came with it are."""
        platform, worker = event
        busy = platform.submit_many([{"sleep_s": 0.3}] * 8)
        wait_until(lambda: is_running(platform, *busy))
        for document in ({"input": {}}, {"id": 5, "input": {}}, "no job", {"id": "good", "input": {}}):
            platform.inject(document)

        assert platform.wait("good").status == "COMPLETED"
        worker.wait_log("without an id")

    def test_result_that_nobody_takes_in_time(self):
        """A platform that says nothing to a result holds its place for a bounded time only."""
        with LoopbackRunPod(hold_s=1.0) as platform, worker_of(platform, "event", 8, "POST_S", 0.5) as worker:
            platform.delay_done(5)
            job = platform.submit({})
            worker.wait_log(f'"requestId": "{job}", "message": "The job\'s result is lost, ')

    def test_each_result_has_pauses_of_its_own(self, event):
        """A result whose connection breaks, or that comes when the platform is busy, is sent again as well.

        Each waits two seconds for its second try, however many were sent again before it.
        """
        platform, _ = event
        faults = [500, DROPPED, 429, 500]
        for fault in faults:
            platform.fail("job-done", fault, times=1)
        jobs = platform.submit_many([{}] * len(faults))
        results = platform.wait_all(jobs)
        records = [platform.record(job) for job in jobs]

        assert {result.status for result in results} == {"COMPLETED"}
        assert {(len(each.refused), len(each.results)) for each in records} == {(1, 1)}
        assert all(1.9 < each.results[0].at_s - each.refused[0].at_s < 2.7 for each in records)

    def test_job_that_cannot_be_read(self, event):
        """A job nested too deeply to be read costs a poll, not the worker."""
        platform, worker = event
        platform.fail(
            "job-take", Fault(200, b'[{"id": "deep", "input": %s1%s}]' % (b"[" * 9999, b"]" * 9999))
        )
        worker.wait_log("Asking for jobs failed (RecursionError")

        assert platform.run_sync({}).status == "COMPLETED"

    def test_number_of_many_digits(self, event):
        """A number longer than Python reads as an int costs its job no neighbour."""
        platform, worker = event
        body = b'[{"id": "long", "input": {"n": %s}}, {"id": "beside", "input": {}}]' % (b"9" * 5000)
        platform.fail("job-take", Fault(200, body))

        wait_started(worker, "beside")
        assert platform.run_sync({}).status == "COMPLETED"

    def test_same_job_twice_at_once(self, event):
        """A job delivered again while it runs is answered both times, and keeps its two places until then."""
        platform, _ = event
        job = platform.submit({"sleep_s": 0.5})
        wait_until(lambda: is_running(platform, job))
        platform.duplicate(job)
        wait_until(lambda: len(platform.record(job).results) == 2)

        assert platform.run_sync({}).status == "COMPLETED"

    def test_cancel_as_soon_as_taken(self, event):
        """A cancel that follows the delivery at once is not lost."""
        platform, _ = event
        for _ in range(20):
            job = platform.submit({"sleep_s": 60})
            wait_until(lambda job=job: is_running(platform, job))
            platform.cancel(job)
        results = platform.wait_all(platform.submit_many([{}] * 8))  # all places are free again

        assert {result.status for result in results} == {"COMPLETED"}

    def test_failing_platform_is_spared(self):
        """While polls fail, the worker asks ever less often."""
        with LoopbackRunPod(hold_s=1.0) as platform, worker_of(platform, "event") as worker:
            platform.fail("job-take", 500, times=1000)
            time.sleep(1.6)
            waits = [line for line in worker.log().splitlines() if "asking again in" in line]

        assert 3 <= len(waits) <= 5
        assert "0.1 s" in waits[0]
        assert "0.4 s" in waits[2]

    def test_unheld_poll_is_not_a_storm(self):
        """A platform that answers at once that there is no job is asked twenty times a second at most."""
        with LoopbackRunPod(hold_s=0.0) as platform:
            with worker_of(platform, "event", RUNPOD_LOG_LEVEL="DEBUG") as worker:
                before = worker.log().count("get_job:")
                time.sleep(1)
                after = worker.log().count("get_job:")

        assert 5 <= after - before <= 25


class TestStop:
    def test_sigterm_closes_an_idle_poll(self):
        """An idle worker leaves at once with 0, and what is queued then stays for others."""
        with LoopbackRunPod(hold_s=20.0) as platform, worker_of(platform, "event") as worker:
            worker.terminate()

            assert worker.wait(3) == 0
            job = platform.submit({})
            time.sleep(0.1)
            assert platform.result(job).status == "IN_QUEUE"

    def test_sigterm_finishes_and_takes_no_more(self):
        """After SIGTERM running jobs are answered, and a job that is queued meanwhile is left alone."""
        with LoopbackRunPod(hold_s=20.0) as platform, worker_of(platform, "event") as worker:
            running = platform.submit_many([{"sleep_s": 1.0}] * 3)
            wait_started(worker, *running)
            worker.terminate()
            worker.wait_log("SIGTERM: taking no more jobs, finishing 3.")
            time.sleep(0.3)  # until the platform hears that the poll was given up
            late = platform.submit({})

            assert {result.status for result in platform.wait_all(running)} == {"COMPLETED"}
            assert worker.wait(3) == 0
            assert platform.result(late).status == "IN_QUEUE"

    def test_sigterm_while_full(self):
        """A worker without a free place hears SIGTERM as well."""
        with LoopbackRunPod(hold_s=20.0) as platform, worker_of(platform, "event", 3) as worker:
            jobs = platform.submit_many([{"sleep_s": 0.5}] * 4)
            wait_started(worker, *jobs[:3])
            worker.terminate()

            assert worker.wait(3) == 0
            assert [platform.result(job).status for job in jobs] == ["COMPLETED"] * 3 + ["IN_QUEUE"]

    def test_second_ctrl_c(self):
        """Ctrl-C finishes what runs; a second one ends the worker at once."""
        with LoopbackRunPod(hold_s=20.0) as platform, worker_of(platform, "event") as worker:
            job = platform.submit({"sleep_s": 60})
            wait_started(worker, job)
            os.kill(worker.pid, signal.SIGINT)
            worker.wait_log("SIGINT: taking no more jobs, finishing 1.")
            os.kill(worker.pid, signal.SIGINT)

            assert worker.wait(3) == 128 + signal.SIGINT


@pytest.mark.parametrize(("version", "is_ours"), [(SDK_VERSION, True), ("1.12.1", False)])
def test_only_for_the_tested_sdk(monkeypatch, caplog, version, is_ours):
    """With any other version of the SDK its own loop runs, and the log says so."""
    its_own = rp_scale.JobScaler
    monkeypatch.setattr(rp_scale, "JobScaler", its_own)
    queue._install_loop(version)

    assert (rp_scale.JobScaler is loop.JobLoop) == is_ours
    assert ("using the SDK's" in caplog.text) == (not is_ours)
