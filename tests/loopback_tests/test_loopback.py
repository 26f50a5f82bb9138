"""The loopback platform with the real SDK on both of its sides, and with workers that die."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import runpod

from tests.loopback import TRUNCATED_JSON, WRONG_CONTENT_TYPE, Fault, LoopbackRunPod, WorkerDied
from tests.loopback_tests.wire import ECHO, Wire, wait_until


HEALTH_KEYS = {"idle", "initializing", "ready", "running", "throttled", "unhealthy"}


TAKE_AND_EXIT = """
import os, urllib.request
url = os.environ["RUNPOD_WEBHOOK_GET_JOB"].replace("$ID", os.environ["RUNPOD_POD_ID"])
headers = {"Authorization": os.environ["RUNPOD_AI_API_KEY"]}
urllib.request.urlopen(urllib.request.Request(url, headers=headers)).read()
os._exit(5)
"""


@pytest.fixture(scope="module")
def served():
    """A platform and one SDK worker of concurrency 64, for the tests that leave it running."""
    with LoopbackRunPod() as platform, platform.worker(ECHO) as worker:
        worker.wait_ready()
        yield platform, worker


@pytest.fixture
def endpoint(served, monkeypatch):
    """The SDK's client of the served platform."""
    platform, _ = served
    monkeypatch.setattr(runpod, "endpoint_url_base", platform.base_url)
    endpoint = runpod.Endpoint(platform.endpoint_id, api_key=platform.api_key)
    with endpoint.rp_client.rp_session:
        yield endpoint


class TestWorker:
    """The SDK's worker loop against the platform."""

    def test_takes_one_by_one_at_concurrency_1(self):
        """A worker of concurrency 1 takes single jobs and answers them."""
        with LoopbackRunPod() as platform, platform.worker(ECHO, env={"ECHO_CONCURRENCY": "1"}) as worker:
            assert platform.run_sync({"text": "x"}).output == {"echo": {"text": "x"}}
            assert "batch_size" not in worker.log()

    def test_answers_64_concurrent_jobs(self, served):
        """64 jobs in flight together each get their own answer, in one result each."""
        platform, worker = served
        job_ids = platform.submit_many({"n": n, "sleep_s": 0.2} for n in range(64))
        results = platform.wait_all(job_ids)

        assert list(range(64)) == [result.output["echo"]["n"] for result in results]
        records = [platform.record(job_id) for job_id in job_ids]
        assert {1} == {len(record.results) for record in records}
        assert {worker.id} == {take.worker_id for record in records for take in record.takes}
        assert sum(result.execution_ms for result in results) > 64 * 200

    def test_gets_the_platforms_environment_only(self, monkeypatch):
        """No RUNPOD_ variable and no HOME of the parent reaches the worker."""
        monkeypatch.setenv("RUNPOD_DEBUG_LEVEL", "TRACE")
        code = (
            "import os; print([n for n in os.environ if 'DEBUG_LEVEL' in n], os.listdir(os.environ['HOME']))"
        )
        with LoopbackRunPod() as platform, platform.worker([sys.executable, "-c", code]) as worker:
            assert worker.wait() == 0
            assert worker.log() == "[] []\n"

    def test_death_before_the_first_take_is_told_with_the_log(self):
        """A worker that dies while starting fails `wait_ready` at once, with what it wrote."""
        code = "import sys; print('no such model'); sys.exit(3)"
        with (
            LoopbackRunPod() as platform,
            platform.worker([sys.executable, "-c", code]) as worker,
            pytest.raises(WorkerDied, match=r"status 3.*\n.*no such model"),
        ):
            worker.wait_ready()

    def test_pings(self, served):
        """The worker's heartbeat is recorded."""
        platform, worker = served
        wait_until(lambda: platform.pings(worker.id))

        assert platform.pings(worker.id)[0].params == {"runpod_version": runpod.__version__}

    def test_nan_is_refused(self, served):
        """An output with NaN never reaches the caller: the job stays in progress."""
        platform, _ = served
        job_id = platform.submit({"number": "nan"})
        wait_until(lambda: platform.record(job_id).refused)

        assert [posted.http_status for posted in platform.record(job_id).refused] == [400]
        with pytest.raises(TimeoutError, match=f"{job_id} is IN_PROGRESS"):
            platform.wait(job_id, timeout_s=0.1)

    def test_bears_faulty_takes(self, served):
        """The SDK goes on after answers that are no answers, and loses no job."""
        platform, _ = served
        for fault in (Fault(500), TRUNCATED_JSON, WRONG_CONTENT_TYPE):
            platform.fail("job-take", fault)

        assert platform.run_sync({"text": "still"}).status == "COMPLETED"

    def test_gets_duplicates_and_documents_without_input(self, served):
        """The SDK runs a duplicate twice, and hands on a listed job without input."""
        platform, _ = served
        job_id = platform.run_sync({"text": "twice"}).id
        platform.duplicate(job_id)
        platform.inject({"id": "without-input"})

        assert platform.wait("without-input").output == {"echo": None}
        wait_until(lambda: len(platform.record(job_id).results) == 2)
        assert len(platform.record(job_id).takes) == 2

    def test_stops_a_cancelled_job(self, served):
        """A running job that is cancelled is stopped inside the worker, and posts no result."""
        platform, worker = served
        job_id = platform.submit({"sleep_s": 30})
        platform.run_sync({"text": "taken later"})
        platform.cancel(job_id)

        worker.wait_log(f"stopped {job_id}")
        assert (platform.result(job_id).status, platform.record(job_id).results) == ("CANCELLED", ())


class TestProcess:
    """Worker processes that end."""

    def test_a_killed_workers_job_is_done_by_another(self):
        """A job whose worker is killed is done by another; the heartbeat dies with its worker."""
        with LoopbackRunPod() as platform, platform.worker(ECHO) as victim, platform.worker(ECHO) as heir:
            victim.wait_ready()
            job_ids = [platform.submit({"sleep_s": 1})]
            while not (lost := held_by(platform, victim, job_ids)):
                job_ids.append(platform.submit({"sleep_s": 1}))
                time.sleep(0.05)
            victim.kill()

            assert victim.returncode == -signal.SIGKILL
            wait_until(lambda: not living_processes(victim.pid))
            assert {result.status for result in platform.wait_all(job_ids)} == {"COMPLETED"}
            for job_id in lost:
                assert [take.worker_id for take in platform.record(job_id).takes] == [victim.id, heir.id]
            assert platform.health()["jobs"]["retried"] >= len(lost)

    def test_a_crashed_workers_job_waits_for_redelivery(self):
        """A worker that ends with a job leaves it in progress until it is redelivered."""
        with LoopbackRunPod() as platform, platform.worker([sys.executable, "-c", TAKE_AND_EXIT]) as worker:
            job_id = platform.submit("x")

            assert worker.wait() == 5
            assert platform.result(job_id).status == "IN_PROGRESS"
            assert platform.health()["workers"] == dict.fromkeys(HEALTH_KEYS, 0)
            assert platform.redeliver(worker.id) == [job_id]

    def test_sigterm_finishes_what_is_in_flight(self):
        """A terminated worker posts the job that it runs, then exits with 0."""
        with LoopbackRunPod(hold_s=0.5) as platform, platform.worker(ECHO) as worker:
            job_id = platform.submit({"sleep_s": 1})
            worker.wait_log("Started.")
            worker.terminate()

            assert worker.wait() == 0
            assert platform.result(job_id).status == "COMPLETED"
            assert len(platform.record(job_id).results) == 1

    def test_no_process_outlives_a_failing_test(self):
        """An exception inside the block ends the worker and its children all the same."""
        with (  # noqa: PT012 (the blocks are the subject)
            pytest.raises(ZeroDivisionError),
            LoopbackRunPod() as platform,
            platform.worker(["sh", "-c", "sleep 60 & sleep 60"]) as worker,
        ):
            wait_until(lambda: len(living_processes(worker.pid)) == 3)
            raise ZeroDivisionError

        wait_until(lambda: not living_processes(worker.pid))


class TestEndpoint:
    """The SDK's client against the platform."""

    def test_run_and_status(self, endpoint):
        """The SDK's client runs a job, sees its states, and gets its output."""
        job = endpoint.run({"text": "x"})

        assert job.status() in {"IN_QUEUE", "IN_PROGRESS"}
        assert job.output(timeout=10) == {"echo": {"text": "x"}}
        assert job.status() == "COMPLETED"

    def test_run_sync(self, endpoint):
        """The SDK's client gets the output of a synchronous job."""
        assert endpoint.run_sync({"text": "x"}, timeout=10) == {"echo": {"text": "x"}}

    def test_a_string_error_fails_the_job(self, served, endpoint):
        """A handler's error string makes the job FAILED, beside the rest of its output."""
        platform, _ = served
        job = endpoint.run({"error": "INVALID_INPUT: told to"})
        result = platform.wait(job.job_id)

        assert (result.status, result.error) == ("FAILED", "INVALID_INPUT: told to")
        assert job.output() == {"error_code": "TOLD_TO"}

    def test_cancel(self, endpoint):
        """The SDK's client cancels a running job."""
        job = endpoint.run({"sleep_s": 30})
        job.cancel()

        assert job.status() == "CANCELLED"

    def test_health_and_purge(self, endpoint):
        """The SDK's client sees five counts of jobs and six of workers, and can purge the queue."""
        health = endpoint.health()

        assert {"completed", "failed", "inProgress", "inQueue", "retried"} == health["jobs"].keys()
        assert health["workers"].keys() == HEALTH_KEYS
        assert health["workers"]["ready"] == 1
        assert endpoint.purge_queue()["status"] == "completed"


class TestOpenAI:
    """The passthrough of OpenAI requests."""

    def test_embeddings(self, served):
        """A POST below /openai reaches the worker as route and body; its one-element list is unwrapped."""
        wire = Wire(served[0])
        with wire.session:
            reply = wire.post("openai/v1/embeddings", {"input": ["a"]})

        assert reply.json() == {"echo": {"openai_route": "/v1/embeddings", "openai_input": {"input": ["a"]}}}

    def test_models(self, served):
        """A GET below /openai reaches the worker as a bare route."""
        wire = Wire(served[0])
        with wire.session:
            reply = wire.get("openai/v1/models")

        assert reply.json() == {"echo": {"openai_route": "/v1/models"}}


def living_processes(group):
    """Return the ids of a group's processes, zombies apart."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                found.append(int(path.parent.name))
    return found


def held_by(platform, worker, job_ids):
    """Return the jobs that the worker has taken."""
    records = [platform.record(job_id) for job_id in job_ids]
    return [record.id for record in records if worker.id in {take.worker_id for take in record.takes}]
