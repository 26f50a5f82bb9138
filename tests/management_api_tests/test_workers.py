"""Workers that come, go and are replaced, and the releases that tell why."""

from __future__ import annotations

import time

import pytest

from tests.loopback_tests.wire import wait_until


@pytest.fixture
def endpoint(api, wire):
    """An endpoint with two workers that start up for 50 ms, replaced 100 ms apart."""
    api.plan_workers((0.0, "INITIALIZING"), (0.05, "IDLE"), rollout_step_s=0.1)
    return wire.create(workers={"min": 2, "max": 3}).json()["id"]


class TestWorkers:
    def test_none_without_a_minimum(self, wire):
        """An endpoint that may scale to zero has no workers at first."""
        workers = wire.send("GET", f"serverless/{wire.create().json()['id']}/workers").json()

        assert workers["workers"] == []
        assert workers["summary"]["total"] == 0

    def test_pass_through_their_stages(self, api, wire):
        """Workers go through the stages planned; placed ones say where they are."""
        api.plan_workers((0.0, "THROTTLED"), (0.1, "INITIALIZING"), (0.2, "UNHEALTHY"), (0.3, "RUNNING"))
        name = wire.create(workers={"min": 1}).json()["id"]
        seen = []
        while "RUNNING" not in seen:
            (worker,) = wire.send("GET", f"serverless/{name}/workers").json()["workers"]
            assert (worker["gpuTypeId"] is None) == (worker["status"] != "RUNNING")
            seen += [worker["status"]] if worker["status"] not in seen else []
            time.sleep(0.02)

        assert seen == ["THROTTLED", "INITIALIZING", "UNHEALTHY", "RUNNING"]

    def test_are_counted(self, api, wire, endpoint):
        """The summary counts the workers by status; workers beyond the minimum can be had and let go."""
        summary = wire.send("GET", f"serverless/{endpoint}/workers").json()["summary"]
        api.scale(endpoint, 3)

        assert summary["initializing"] + summary["idle"] == summary["total"] == 2
        assert wire.send("GET", f"serverless/{endpoint}/workers").json()["summary"]["total"] == 3
        api.scale(endpoint, 0)
        assert wire.send("GET", f"serverless/{endpoint}/workers").json()["workers"] == []


class TestReleases:
    def test_the_first_changes_nothing(self, wire, endpoint):
        """A new endpoint has one release without a difference, and all its workers run it."""
        history = wire.send("GET", f"serverless/{endpoint}/releases").json()

        assert [release["diff"] for release in history["releases"]] == [[]]
        assert history["rollout"]["percentOnLatest"] == 100

    def test_a_new_image_rolls_out(self, wire, endpoint):
        """A change of the container is a release whose workers replace the old ones one by one."""
        wire.patch(image="org/clip:2", env={"A": "1"})
        first = wire.send("GET", f"serverless/{endpoint}/releases").json()
        workers = wire.send("GET", f"serverless/{endpoint}/workers").json()["workers"]

        assert first["releases"][0]["diff"] == [
            {"field": "template.env", "old": {}, "new": {"A": "1"}},
            {"field": "template.imageName", "old": "org/clip:1", "new": "org/clip:2"},
        ]
        assert first["rollout"]["inProgress"]
        assert any(worker["isStale"] and worker["image"] == "org/clip:1" for worker in workers)
        wait_until(
            lambda: (
                wire.send("GET", f"serverless/{endpoint}/releases").json()["rollout"]
                == {"inProgress": False, "workersOnLatest": 2, "workersTotal": 2, "percentOnLatest": 100}
            )
        )

    def test_scaling_is_prompt(self, wire, endpoint):
        """A change of scaling is a release that the workers have at once."""
        wire.patch(workers={"max": 10})
        history = wire.send("GET", f"serverless/{endpoint}/releases").json()

        assert history["releases"][0]["diff"] == [{"field": "workers.max", "old": 3, "new": 10}]
        assert history["endpointVersion"] == 2
        assert not history["rollout"]["inProgress"]

    def test_the_same_again_is_no_release(self, wire, endpoint):
        """A patch that changes nothing makes no release."""
        wire.patch(image="org/clip:1", workers={"min": 2})

        assert len(wire.send("GET", f"serverless/{endpoint}/releases").json()["releases"]) == 1
