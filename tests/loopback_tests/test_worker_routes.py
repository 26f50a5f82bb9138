"""The routes of the worker's side, over bare HTTP."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.loopback import DROPPED, LOST_REPLY, TRUNCATED_JSON, WRONG_CONTENT_TYPE, Fault, LoopbackRunPod
from tests.loopback_tests.wire import Wire


class TestTake:
    """Takes and the polls that are held for them."""

    def test_gives_one_job_as_an_object(self, platform, wire):
        """A single take answers with the job's id, its input and the caller's other keys."""
        job_id = platform.submit({"text": "x"}, extra={"webhook": "https://example.org"})

        reply = wire.take()

        assert reply.headers["Content-Type"].startswith("application/json")
        assert reply.json() == {"id": job_id, "input": {"text": "x"}, "webhook": "https://example.org"}

    @pytest.mark.parametrize(("queued", "taken"), [(1, 1), (2, 2), (3, 3), (4, 3)])
    def test_gives_a_list_of_at_most_the_batch_size(self, platform, wire, queued, taken):
        """A batch take of 3 answers with the oldest jobs, 3 at most."""
        job_ids = platform.submit_many(range(queued))

        assert job_ids[:taken] == [job["id"] for job in wire.take_batch(3).json()]

    @pytest.mark.parametrize(
        "path", ["job-take/w?g=X", "job-take-batch/w?g=X&batch_size=9", "job-stop/w?g=X"]
    )
    def test_is_held_and_then_empty(self, wire, path):
        """A poll with nothing to answer ends as 204 after the hold, not before."""
        started_s = time.monotonic()

        assert wire.get(path).status_code == 204
        assert 0.2 <= time.monotonic() - started_s < 5

    def test_is_woken_at_once(self):
        """A held poll answers within milliseconds of a job being queued."""
        with LoopbackRunPod(hold_s=5) as platform, ThreadPoolExecutor() as pool:
            poll = pool.submit(Wire(platform).take)
            time.sleep(0.1)
            queued_s = time.monotonic()
            job_id = platform.submit("late")

            assert job_id == poll.result().json()["id"]
            assert time.monotonic() - queued_s < 0.5

    def test_gives_a_job_to_one_worker_only(self, platform):
        """Of two held polls, one gets the job and the other ends empty."""
        with ThreadPoolExecutor() as pool:
            polls = [pool.submit(Wire(platform).take, worker) for worker in "ab"]
            time.sleep(0.05)
            platform.submit("x")

            assert sorted(poll.result().status_code for poll in polls) == [200, 204]

    def test_hands_nothing_to_a_closed_connection(self, platform, wire):
        """A job queued after a polling worker has hung up is there for the next poll."""
        with pytest.raises(requests.Timeout):
            wire.session.get(f"{platform.endpoint_url}/job-take/w?g=X", timeout=0.05)
        time.sleep(0.05)
        job_id = platform.submit("x")

        assert platform.record(job_id).takes == ()
        assert job_id == wire.take().json()["id"]

    @pytest.mark.parametrize("document", [{"id": "odd", "input": None}, {"id": "odd"}, {"input": 1}, 7])
    def test_gives_an_injected_document_unchanged(self, platform, wire, document):
        """A document is delivered as it was injected, well-formed or not."""
        platform.inject(document)

        assert [document] == wire.take_batch(2).json()

    @pytest.mark.parametrize("fault", [Fault(429), Fault(500), TRUNCATED_JSON, WRONG_CONTENT_TYPE])
    def test_fails_as_often_as_told(self, platform, wire, fault):
        """An armed fault is given that many times and loses no job."""
        job_id = platform.submit("x")
        platform.fail("job-take", fault, times=2)

        for _ in range(2):
            reply = wire.take()
            assert (fault.status, fault.body) == (reply.status_code, reply.content)
            assert reply.headers["Content-Type"].startswith(fault.content_type)
        assert job_id == wire.take().json()["id"]

    def test_drops_a_take(self, platform, wire):
        """A take whose connection is dropped gets no answer and no job."""
        job_id = platform.submit("x")
        platform.fail("job-take", DROPPED)

        with pytest.raises(requests.ConnectionError):
            wire.take()
        assert platform.faults_used() == {"job-take": 1}
        assert job_id == wire.take().json()["id"]

    def test_fails_a_held_poll_at_once(self):
        """A fault armed while a poll is held answers that poll, not the next one."""
        with LoopbackRunPod(hold_s=5) as platform, ThreadPoolExecutor() as pool:
            poll = pool.submit(Wire(platform).take)
            time.sleep(0.1)
            platform.fail("job-take", 500)

            assert poll.result(timeout=2).status_code == 500

    def test_refuses_faults_of_unknown_routes(self, platform):
        """A misspelt route is an error, not a fault that never comes."""
        with pytest.raises(ValueError, match="job_take"):
            platform.fail("job_take", 500)


class TestDone:
    """Results and partial outputs."""

    @pytest.mark.parametrize(
        ("fault", "taken", "refused"), [(DROPPED, [200], [500]), (LOST_REPLY, [0, 200], [])]
    )
    def test_drops_a_result(self, platform, wire, fault, taken, refused):
        """A result whose connection is dropped counts or not, as told; either way the job ends once."""
        job_id = platform.submit("x")
        wire.take()
        platform.fail("job-done", fault)

        with pytest.raises(requests.ConnectionError):
            wire.done(job_id, {"output": 1})
        wire.done(job_id, {"output": 2})
        record = platform.record(job_id)

        assert [posted.http_status for posted in record.results] == taken
        assert [posted.http_status for posted in record.refused] == refused
        assert platform.wait(job_id).output == record.results[0].body["output"]

    @pytest.mark.parametrize(
        ("body", "standing"),
        [
            ({"output": [1]}, ("COMPLETED", [1], None)),
            ({"output": None}, ("COMPLETED", None, None)),
            ({}, ("COMPLETED", None, None)),
            ({"error": "bad"}, ("FAILED", None, "bad")),
            ({"error": "bad", "output": {"n": 1}}, ("FAILED", {"n": 1}, "bad")),
            ({"error": {"code": 1}, "output": 2}, ("COMPLETED", None, None)),
            ({"status": "IN_PROGRESS", "output": "half"}, ("IN_PROGRESS", None, None)),
        ],
    )
    def test_decides_the_state(self, platform, wire, body, standing):
        """The posted body decides how the job ends; only a string is an error."""
        job_id = platform.submit("x")
        wire.take()

        assert wire.done(job_id, body).status_code == 200
        result = platform.result(job_id)
        assert (result.status, result.output, result.error) == standing

    @pytest.mark.parametrize(
        "body", [b"", b"[1]", b"nope", b'{"output": NaN}', b'{"output": [-Infinity]}', b"\xff"]
    )
    def test_refuses_what_is_no_json_object(self, platform, wire, body):
        """A body that is not a strict JSON object is refused with 400, recorded, and changes nothing."""
        job_id = platform.submit("x")
        wire.take()

        assert wire.done(job_id, body).status_code == 400
        record = platform.record(job_id)
        assert (record.status, record.results) == ("IN_PROGRESS", ())
        assert [(400, body)] == [(posted.http_status, posted.body) for posted in record.refused]

    @pytest.mark.parametrize(
        ("is_sync", "size", "http_status"),
        [(False, 999, 200), (False, 1_000, 200), (False, 1_001, 400), (True, 2_000, 200), (True, 2_001, 400)],
    )
    def test_refuses_too_large_a_result(self, wire, is_sync, size, http_status):
        """A result may have as many bytes as the limit of its kind of job, and no more."""
        job_id = wire.post("runsync" if is_sync else "run", {"input": 1}).json()["id"]

        assert wire.done(job_id, b'{"output":"%s"}' % (b"x" * (size - 13))).status_code == http_status

    def test_counts_the_first_result_and_records_all(self, platform, wire):
        """A second result of a job is recorded and changes nothing."""
        job_id = platform.submit("x")
        wire.take()
        wire.done(job_id, {"output": 1})
        wire.done(job_id, {"output": 2}, worker="other")

        record = platform.record(job_id)
        assert platform.result(job_id).output == 1
        assert [(r.worker_id, r.body) for r in record.results] == [
            ("w", {"output": 1}),
            ("other", {"output": 2}),
        ]

    def test_is_delayed_as_told(self, platform, wire):
        """A delayed result counts only when the delay is over."""
        job_id = platform.submit("x")
        platform.delay_done(0.2)
        started_s = time.monotonic()
        wire.done(job_id, {"output": 1})

        assert time.monotonic() - started_s >= 0.2

    def test_refuses_unknown_jobs(self, platform, wire):
        """A result of a job that does not exist, or was forgotten, is refused with 404."""
        job_id = platform.submit("x")
        platform.forget([job_id])

        assert wire.done(job_id, {}).status_code == 404

    def test_streams(self, platform, wire):
        """Partial outputs reach the caller once each, in order."""
        job_id = platform.submit("x")
        for output in (1, 2):
            wire.post(f"job-stream/w/{job_id}?g=X&isStream=false", {"output": output})

        assert wire.get(f"stream/{job_id}").json()["stream"] == [{"output": 1}, {"output": 2}]
        assert wire.get(f"stream/{job_id}").json()["stream"] == []
        assert platform.record(job_id).stream == (1, 2)


class TestLostWorkers:
    """Jobs delivered more than once."""

    def test_redelivers_unfinished_jobs(self, platform, wire):
        """Jobs of a lost worker are queued again under their ids; its finished ones are not."""
        finished, lost = platform.submit_many("ab")
        wire.take_batch(2, worker="lost")
        wire.done(finished, {"output": 1}, worker="lost")

        assert platform.redeliver("lost") == [lost]
        assert lost == wire.take(worker="heir").json()["id"]
        assert [take.worker_id for take in platform.record(lost).takes] == ["lost", "heir"]
        assert platform.redeliver("lost") == []

    def test_delivers_duplicates(self, platform, wire):
        """A duplicate is delivered although its job has ended."""
        job_id = platform.submit("x")
        platform.duplicate(job_id)
        wire.take()
        wire.done(job_id, {"output": 1})

        assert job_id == wire.take().json()["id"]
        assert platform.result(job_id).status == "COMPLETED"
