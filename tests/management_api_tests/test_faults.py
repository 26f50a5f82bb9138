"""Failures to order: each meets the requests it is meant for, and is gone after that."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import requests

from tests.management_api import (
    ANY_ROUTE,
    DROPPED,
    LOST_ANSWER,
    ManagementApi,
    broken,
    over_quota,
    rate_limited,
    refused,
    stalled,
    unprocessable,
)
from tests.management_api_tests.wire import ENDPOINT


CREATE = "POST /v2/serverless"


class TestFaults:
    @pytest.mark.parametrize(
        ("fault", "status", "says"),
        [
            (over_quota(5), 400, "workers quota (5)"),
            (unprocessable("$.name: taken"), 422, "$.name: taken"),
            (broken(), 503, "upstream"),
            (broken(500), 500, "upstream"),
            (refused(403, "access denied"), 403, "access denied"),
            (rate_limited(7), 429, "minute"),
        ],
    )
    def test_refuse_without_effect(self, wire, api, fault, status, says):
        """A refusal to order changes nothing, twice if armed twice, and then the API answers again."""
        api.fail_next(CREATE, fault, times=2)

        for _ in range(2):
            answer = wire.create()
            assert answer.status_code == status and says in answer.text
        assert api.endpoints == []
        assert wire.create().status_code == 201
        assert [request.status for request in api.changes] == [status, status, 201]

    def test_a_rate_limit_says_when(self, wire, api):
        """429 comes with Retry-After and an empty minute; other answers say what is left."""
        api.fail_next("GET /v2/serverless", rate_limited(7))
        limited, free = (wire.send("GET", "serverless") for _ in range(2))

        assert limited.headers["Retry-After"] == "7"
        assert limited.headers["RateLimit"].startswith('"minute";r=0;t=7')
        assert free.headers["RateLimit"].startswith('"minute";r=59')
        assert "q=60" in limited.headers["RateLimit-Policy"]

    @pytest.mark.parametrize(("fault", "count"), [(DROPPED, 0), (LOST_ANSWER, 1)])
    def test_cut_the_connection(self, wire, api, fault, count):
        """A connection is cut before the effect, or after it: then the endpoint is there."""
        api.fail_next(CREATE, fault)

        with pytest.raises(requests.ConnectionError):
            wire.create()
        assert len(api.endpoints) == count
        assert api.requests[0].status is None

    @pytest.mark.parametrize(("has_effect", "count"), [(False, 0), (True, 1)])
    def test_stall_until_the_client_is_killed(self, api, has_effect, count):
        """A client killed while its request is held leaves what was done before the hold, and no more."""
        api.fail_next(CREATE, stalled(0.3, has_effect=has_effect))
        client = (
            "import json, sys, urllib.request as r; url, key, body = sys.argv[1:];"
            "r.urlopen(r.Request(url, body.encode(), {'Authorization': 'Bearer ' + key}))"
        )
        body = str(ENDPOINT).replace("'", '"')
        process = subprocess.Popen([sys.executable, "-c", client, f"{api.url}/serverless", api.api_key, body])
        try:
            api.wait_for(CREATE)
        finally:
            process.kill()
            process.wait()

        time.sleep(0.4)
        assert len(api.endpoints) == count

    def test_a_short_stall_ends_in_the_answer(self, wire, api):
        """A client that waits long enough is answered as usual."""
        api.fail_next(CREATE, stalled(0.1))

        assert wire.create().status_code == 201

    def test_any_route(self, wire, api):
        """A fault for any route meets the next request."""
        api.fail_next(ANY_ROUTE, broken(502))

        assert [wire.send("GET", "catalog/gpus").status_code for _ in range(2)] == [502, 200]

    def test_unknown_routes_are_refused(self, api):
        """A fault for a route that does not exist would never happen, so it cannot be ordered."""
        with pytest.raises(ValueError, match="no route"):
            api.fail_next("POST /v2/pods", DROPPED)


class TestLog:
    def test_tells_all_requests(self, wire, api):
        """The log has each request with its path, body and status."""
        wire.create()
        wire.send("GET", "serverless/gone")

        first, second = api.requests
        assert (first.method, first.path, first.body, first.status) == (
            "POST",
            "/v2/serverless",
            ENDPOINT,
            201,
        )
        assert (second.route, second.status) == ("GET /v2/serverless/{id}", 404)
        assert second.is_refused and not second.is_change
        assert api.changes == [first]

    def test_waits_for_a_request(self, api):
        """Waiting for a request that does not come ends in time."""
        with pytest.raises(TimeoutError, match="0 of 1"):
            api.wait_for(CREATE, timeout_s=0.01)

    def test_a_wrong_answer_fails_the_test(self):
        """An answer of the API's own that its document does not have is a failure, not a fact of life."""
        api = ManagementApi().__enter__()
        name = api.add(CREATE, ENDPOINT)["id"]
        del api._store.endpoints[name]["createdAt"]
        key = {"Authorization": f"Bearer {api.api_key}"}

        assert requests.get(f"{api.url}/serverless", headers=key, timeout=5).status_code == 500
        with pytest.raises(AssertionError, match="createdAt"):
            api.__exit__(None, None, None)
