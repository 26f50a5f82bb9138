"""The routes of the caller's side, over bare HTTP."""

from __future__ import annotations

import threading

import pytest

from tests.loopback_tests.wire import Wire


class TestCaller:
    """What callers can ask for."""

    @pytest.mark.parametrize("path", ["health", "job-take/w?g=X", "openai/v1/models"])
    def test_needs_the_key(self, wire, path):
        """Every route answers 401 without the right key."""
        assert wire.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401

    @pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"input": null}', b'{"input": NaN}'])
    def test_refuses_jobs_without_input(self, wire, body):
        """A request that is not a JSON object with an input is refused with 400."""
        assert wire.post("run", body).status_code == 400

    @pytest.mark.parametrize(("route", "max_bytes"), [("run", 1_000), ("runsync", 2_000)])
    def test_refuses_too_large_jobs(self, wire, route, max_bytes):
        """A job over the limit of its route is refused with 400."""
        assert wire.post(route, {"input": "x" * max_bytes}).status_code == 400
        assert wire.post(route, {"input": "x" * (max_bytes - 100)}).status_code == 200

    def test_runsync_answers_with_the_result(self, platform, wire):
        """A job that ends within the wait is answered with its output, times and worker."""

        def work():
            worker = Wire(platform)
            worker.done(worker.take().json()["id"], {"output": 5})

        thread = threading.Thread(target=work)
        thread.start()
        reply = wire.post("runsync?wait=5000", {"input": 1}).json()
        thread.join()

        assert {"status": "COMPLETED", "output": 5, "workerId": "w"}.items() <= reply.items()
        assert {"id", "delayTime", "executionTime"} <= reply.keys()

    def test_runsync_answers_unfinished_when_the_wait_is_over(self, wire):
        """A job that does not end within the wait is answered as it stands, with the id to ask for."""
        reply = wire.post("runsync", {"input": 1}).json()

        assert reply["status"] == "IN_QUEUE"
        assert reply["id"].startswith("sync-")
        assert wire.get(f"status/{reply['id']}").json()["status"] == "IN_QUEUE"

    @pytest.mark.parametrize("wait_ms", ["999", "300001", "-1", "soon"])
    def test_runsync_refuses_other_waits(self, wire, wait_ms):
        """The wait may be 1000 to 300000 ms."""
        assert wire.post(f"runsync?wait={wait_ms}", {"input": 1}).status_code == 400

    def test_cancels_a_queued_job(self, platform, wire):
        """A job cancelled in the queue is never delivered."""
        job_id = platform.submit("x")

        assert wire.post(f"cancel/{job_id}").json() == {"id": job_id, "status": "CANCELLED"}
        assert wire.take().status_code == 204

    def test_stops_a_running_job(self, platform, wire):
        """The worker that holds a cancelled job is told so once, and its late result changes nothing."""
        job_id = platform.submit("x")
        wire.take()
        platform.cancel(job_id)

        assert wire.get("job-stop/w?g=X").json() == {"jobsToStop": [job_id]}
        assert wire.get("job-stop/w?g=X").status_code == 204
        assert wire.done(job_id, {"output": 1}).status_code == 200
        assert platform.wait(job_id).status == "CANCELLED"

    @pytest.mark.parametrize(("policy", "is_taken"), [({"executionTimeout": 50}, True), ({"ttl": 50}, False)])
    def test_times_out(self, platform, wire, policy, is_taken):
        """A job ends as TIMED_OUT after its execution timeout, or its time to live in the queue."""
        job_id = platform.submit("x", extra={"policy": policy})
        if is_taken:
            wire.take()

        assert platform.wait(job_id).status == "TIMED_OUT"
        assert wire.get("job-stop/w?g=X").status_code == (200 if is_taken else 204)

    def test_retries_what_failed(self, platform, wire):
        """A failed job can be queued again under its id, a completed one cannot."""
        job_id = platform.submit("x")
        wire.done(wire.take().json()["id"], {"error": "bad"})

        assert wire.post(f"retry/{job_id}").json() == {"id": job_id, "status": "IN_QUEUE"}
        wire.done(wire.take().json()["id"], {"output": 1})
        assert wire.post(f"retry/{job_id}").status_code == 400
        assert (platform.result(job_id).status, platform.record(job_id).retries) == ("COMPLETED", 1)

    def test_purges_the_queue(self, platform, wire):
        """A purge ends the queued jobs and leaves the running one."""
        running, *queued = platform.submit_many(range(3))
        wire.take()

        assert wire.post("purge-queue").json() == {"removed": 2, "status": "completed"}
        assert platform.result(running).status == "IN_PROGRESS"
        assert [result.status for result in platform.wait_all(queued)] == ["CANCELLED"] * 2

    @pytest.mark.parametrize("path", ["status/none", "stream/none", "none"])
    def test_knows_what_it_does_not_know(self, wire, path):
        """Unknown jobs and routes are answered with 404."""
        assert wire.get(path).status_code == 404

    def test_fails_as_told(self, platform, wire):
        """A caller's route gives the armed fault once."""
        platform.fail("status", 503)
        job_id = platform.submit("x")

        assert [wire.get(f"status/{job_id}").status_code for _ in range(2)] == [503, 200]

    def test_accepts_a_heartbeat_with_many_jobs(self, platform, wire):
        """A heartbeat naming 64 KiB of job ids is recorded whole."""
        job_ids = tuple(f"{number:036}" for number in range(1_700))

        assert wire.get("ping/w", params={"job_id": ",".join(job_ids), "check": "gpu"}).status_code == 200
        (ping,) = platform.pings("w")
        assert (job_ids, {"check": "gpu"}) == (ping.job_ids, ping.params)
