"""More callers than places, every tenth of whose requests is bad, for a few seconds."""

from __future__ import annotations

import pytest

from bench import crowd
from bench.http_client import drive
from tests.serve.http.process import OPEN, serving


PLACES = 8
CALLERS = 30
SECONDS = 3.0
LONGEST_MS = 5000.0  # some 0.2 s where nothing else runs


@pytest.fixture(scope="module")
def service():
    """Return a service with few places."""
    with serving(OPEN | {"WORKER_CONCURRENCY": str(PLACES)}) as service:
        yield service


def test_each_gets_what_it_deserves(service, picture):
    """Vectors for the good, faults for the bad, 429 for those without a place; no 5xx, and no one waits."""
    sent = crowd.requests([picture])
    load = drive(service.port, [each.raw for each in sent], callers=CALLERS, duration_s=SECONDS)
    seen = crowd.judge(sent, load)

    assert not seen.wrong, seen.wrong[0]
    assert {200, 400, 404, 422, 429} == set(seen.statuses)
    assert seen.statuses[200] > CALLERS
    assert max(seen.waits_ms) < LONGEST_MS
    assert "Traceback" not in service.log()


def test_nothing_is_left_taken(service, picture):
    """When the crowd has gone, as many callers as there are places all find one."""
    sent = crowd.requests([picture])
    drive(service.port, [each.raw for each in sent], callers=CALLERS, duration_s=0.5)
    few = drive(service.port, [each.raw for each in sent], callers=PLACES, duration_s=0.5)

    assert 429 not in crowd.judge(sent, few).statuses


def test_a_wrong_answer_is_found(service):
    """What is answered otherwise than it deserves is told, with the answer."""
    sent = [crowd.Sent(crowd.requests([b"x"])[2].raw, 422)]
    load = drive(service.port, [each.raw for each in sent], callers=1, duration_s=0.1)

    assert crowd.judge(sent, load).wrong[0].startswith("200 instead of 422: b'{")
