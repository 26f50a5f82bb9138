"""The judge can fail: every way in which a job may end wrongly is told."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from embedding.contract.encoding import encode
from tests.chaos.crew import Member
from tests.chaos.jobs import Job
from tests.chaos.judge import Judge
from tests.chaos.outcomes import INFERENCE_ERROR, Bad, Good
from tests.loopback import JobRecord, JobResult, Posted, Status, Take


def vector(seed):
    """Return a vector of length one."""
    values = np.random.default_rng(seed).normal(size=8)
    return (values / np.linalg.norm(values)).astype(np.float32)


VECTORS = {"a": vector(1), "b": vector(2)}
SECRET = "what nobody may see"
JOB = Job(
    "batch",
    {"items": []},
    "many",
    (Good("a"), Good("b"), Bad("DECODE_ERROR"), INFERENCE_ERROR),
    request_ids=("0", "1", None, "3"),
)
SINGLE = Job("image", {}, "one", (Good("a"),), request_ids=("0",))
REFUSED = Job("forged", {}, "one", refusal=Bad("AUTH_FAILED"), request_ids=("0",))
HEALTH = Job("health", {}, "health")


def embedded(name, request_id):
    """Return the right answer to a good item."""
    return {
        "request_id": request_id,
        "embedding": encode(VECTORS[name], "float", "float32"),
        "normalized": True,
    }


def failed(code, request_id, *, retryable=False):
    """Return the right answer to a bad item."""
    error = {"code": code, "message": "why", "retryable": retryable}
    return {"request_id": request_id, "error": error}


BATCH_BODY = {
    "output": {
        "results": [
            embedded("a", "0"),
            embedded("b", "1"),
            failed("DECODE_ERROR", None),
            failed("INFERENCE_ERROR", "3", retryable=True),
        ],
        "errors": 2,
    }
}
SINGLE_BODY = {"output": embedded("a", "0")}
REFUSED_BODY = {
    "output": {"error_code": "AUTH_FAILED", "retryable": False, "request_id": "0"},
    "error": "AUTH_FAILED: no",
}
HEALTH_BODY = {"output": {"status": "ok"}}


def faults(job, *bodies, takes=1, status=Status.COMPLETED, seen=None, codes=None, lost_at_s=None):
    """Return what the judge says of *job* that was taken *takes* times and got *bodies* at 1 s, 2 s, ..."""
    codes = codes or [200] * len(bodies)
    results = tuple(
        Posted("w", number, code, body)
        for number, (body, code) in enumerate(zip(bodies, codes, strict=True), 1)
    )
    seen = seen or (bodies[0] if bodies else {})
    record = JobRecord("id", status, 0.0, 1.0, 0, (Take("w", 0.0),) * takes, results, (), (), (), ())
    result = JobResult("id", status, seen.get("output"), seen.get("error"), 0.0, 0.0)
    return Judge(VECTORS, lost_at_s or {}, (SECRET,)).faults(job, record, result)


def changed(body, change):
    """Return *body* after *change* was done to a copy of it."""
    body = copy.deepcopy(body)
    change(body)
    return body


def results_of(body):
    """Return the results of a batch."""
    return body["output"]["results"]


@pytest.mark.parametrize(
    ("job", "body"),
    [(JOB, BATCH_BODY), (SINGLE, SINGLE_BODY), (REFUSED, REFUSED_BODY), (HEALTH, HEALTH_BODY)],
    ids=["batch", "single", "refused", "health"],
)
def test_right_answer(job, body):
    """What is right is right, and would be wrong for any other job."""
    assert faults(job, body) == []
    assert all(faults(other, body) for other in (JOB, SINGLE, REFUSED, HEALTH) if other is not job)


class TestDeliveries:
    @pytest.mark.parametrize("status", ["IN_QUEUE", "IN_PROGRESS", "CANCELLED", "TIMED_OUT"])
    def test_lost(self, status):
        """A job without an end is lost."""
        assert "lost" in faults(SINGLE, status=Status(status))[0]

    @pytest.mark.parametrize(
        ("posts", "takes", "codes", "right"),
        [
            (0, 1, [], False),
            (1, 1, [200], True),
            (2, 1, [200, 200], False),
            (2, 2, [200, 200], True),
            (3, 2, [200, 200, 200], False),
            (2, 1, [0, 200], True),
            (3, 1, [0, 200, 200], False),
        ],
    )
    def test_doubled(self, posts, takes, codes, right):
        """A delivery has one result; one more only where its worker could not know of the first."""
        seen = SINGLE_BODY
        told = faults(SINGLE, *[SINGLE_BODY] * posts, takes=takes, codes=codes, seen=seen)

        assert (told == []) is right

    def test_late_result_is_judged(self):
        """A second result that is wrong is told, although nobody sees it."""
        wrong = changed(SINGLE_BODY, lambda body: body["output"].update(embedded("b", "0")))

        assert faults(SINGLE, SINGLE_BODY, SINGLE_BODY, takes=2) == []
        assert "off that of 'a'" in faults(SINGLE, SINGLE_BODY, wrong, takes=2)[0]

    def test_what_the_caller_sees(self):
        """The caller sees the first result and no other."""
        other = changed(SINGLE_BODY, lambda body: body["output"].update(timings={}))

        assert "not the first" in faults(SINGLE, SINGLE_BODY, other, takes=2, seen=other)[0]


class TestAnswers:
    @pytest.mark.parametrize(
        "change",
        [
            lambda body: results_of(body).reverse(),
            lambda body: results_of(body).pop(),
            lambda body: results_of(body).append(embedded("a", "4")),
            lambda body: results_of(body).__setitem__(0, "a vector"),
            lambda body: body["output"].update(results=None),
            lambda body: results_of(body)[0].update(embedded("b", "0")),
            lambda body: results_of(body)[0].update(request_id="9"),
            lambda body: results_of(body)[0].update(embedding=[float("nan")] * 8),
            lambda body: results_of(body)[0].update(embedding=[0.0] * 8),
            lambda body: results_of(body)[0].update(embedding=VECTORS["a"].tolist()[:7]),
            lambda body: results_of(body)[0].update(embedding="@"),
            lambda body: results_of(body)[0].update(embedding=(2 * VECTORS["a"]).tolist()),
            lambda body: results_of(body)[0].update(normalized=False),
            lambda body: results_of(body)[0].pop("embedding"),
            lambda body: results_of(body)[0].update(failed("INFERENCE_ERROR", "0", retryable=True)),
            lambda body: results_of(body).__setitem__(0, failed("INFERENCE_ERROR", "0", retryable=True)),
            lambda body: results_of(body).__setitem__(2, embedded("a", None)),
            lambda body: results_of(body).__setitem__(2, failed("INTERNAL_ERROR", None)),
            lambda body: results_of(body).__setitem__(2, failed("DECODE_ERROR", None, retryable=True)),
            lambda body: body["output"].update(errors=1),
            lambda body: body.update(error="INTERNAL_ERROR: all of it"),
            lambda body: body.update(output=None),
            lambda body: results_of(body)[2]["error"].update(message=SECRET),
        ],
    )
    def test_wrong_batch(self, change):
        """Every change to a right answer makes it wrong."""
        assert faults(JOB, changed(BATCH_BODY, change))

    @pytest.mark.parametrize(("off", "right"), [(0.9e-5, True), (1.1e-5, False)])
    def test_tolerance(self, off, right):
        """A vector may be 1e-5 off, and no more."""
        moved = VECTORS["a"].copy()
        moved[0] += off
        body = changed(SINGLE_BODY, lambda body: body["output"].update(embedding=moved.tolist()))

        assert (faults(replace(SINGLE, input={"normalize": True}), body) == []) is right

    @pytest.mark.parametrize(
        "change",
        [
            lambda body: body.pop("error"),
            lambda body: body.update(error="INVALID_INPUT: no"),
            lambda body: body["output"].update(error_code="INVALID_INPUT"),
            lambda body: body["output"].update(retryable=True),
            lambda body: body["output"].update(request_id="9"),
            lambda body: body["output"].update(embedding=[]),
        ],
    )
    def test_wrong_refusal(self, change):
        """A refusal with another code, promise or id is wrong."""
        assert faults(REFUSED, changed(REFUSED_BODY, change))

    @pytest.mark.parametrize(
        ("lost_at_s", "right"), [({}, False), ({"w": 0.5}, True), ({"w": 1.5}, False), ({"v": 0.5}, False)]
    )
    def test_lost_device(self, lost_at_s, right):
        """A good item may fail only after its own worker's device was lost, and a bad one not even then."""

        def fail(place):
            error = failed("INFERENCE_ERROR", JOB.request_ids[place], retryable=True)
            return changed(BATCH_BODY, lambda body: results_of(body).__setitem__(place, error))

        good = changed(fail(0), lambda body: body["output"].update(errors=3))

        assert (faults(JOB, good, lost_at_s=lost_at_s) == []) is right
        assert faults(JOB, fail(2), lost_at_s=lost_at_s)

    @pytest.mark.parametrize(("lost_at_s", "right"), [({}, False), ({"w": 0.5}, True)])
    def test_health_of_a_lost_device(self, lost_at_s, right):
        """`failed` is the truth only after the device was lost."""
        assert (faults(HEALTH, {"output": {"status": "failed"}}, lost_at_s=lost_at_s) == []) is right


@pytest.mark.parametrize(
    ("fate", "status", "log", "rss", "told"),
    [
        ("killed", -9, "", [1], ""),
        ("served", 0, "", [1, 1 + (700 << 20)], ""),
        ("served", 0, "Traceback (most recent call last) ... injected by the chaos run", [1], ""),
        ("", -9, "", [1], "ended with status -9"),
        ("stopped", 1, "", [1], "ended with status 1"),
        ("served", -15, "", [1], "ended with status -15"),
        ("served", 0, "Traceback (most recent call last)", [1], "a traceback of its own"),
        ("served", 0, f"x{SECRET}x", [1], "nobody may see"),
        ("served", 0, "", [1, 2 + (700 << 20)], "grew from 0 to 700 MiB"),
        ("served", 0, "", [100] * 150 + [110] * 50, ""),
        ("served", 0, "", [100] * 150 + [111] * 50, "did not stop growing"),
        ("served", 0, "", [100] * 149 + [111] * 50, ""),
    ],
)
def test_workers(fate, status, log, rss, told):
    """A worker's exit status, log and memory are judged."""
    member = Member(SimpleNamespace(id="w", returncode=status), 0, fate, is_ready=True, rss=rss, log=log)

    assert [told in fault for fault in member.faults([SECRET])] == [True] * bool(told)
