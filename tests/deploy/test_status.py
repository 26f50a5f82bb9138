"""How an environment stands."""

from __future__ import annotations

import json

from tests.deploy.conftest import CONFIG, NEW, OLD, VOLUME
from tests.management_api import rate_limited


def test_nothing_is_there(deploy, api):
    """Exit status 1 and what would create it."""
    done = deploy("status")

    assert (done.status, done.out) == (1, "no endpoint is called clip; `apply` creates it\n")


def test_as_applied(deploy, api, worker):
    """Endpoint, workers, jobs, identity, releases and records, and no drift."""
    deploy.apply("--workers-min", "1")
    report = json.loads(deploy("status", "--json", "--ask").out)

    assert report["endpoint"]["image"] == OLD
    assert report["workers"] == {
        "running": 0, "idle": 1, "initializing": 0, "throttled": 0, "unhealthy": 0, "stale": 0
    }  # fmt: skip
    assert report["identity"]["identityMatches"] is True
    assert report["health"]["jobs"].keys() >= {"completed", "failed"}
    assert report["drift"] == ["~ workers.min: 1 -> 0"]
    assert [each["outcome"] for each in report["records"]] == ["smoke passed"]
    assert report["releases"][0]["version"] == 1


def test_drift_is_told_and_looking_changes_nothing(deploy, api, worker, monkeypatch):
    """What differs from the file is shown; a secret that this shell has not is no difference."""
    deploy.apply("--image", NEW)
    before = len(api.changes)
    monkeypatch.delenv("EMBEDDING_HMAC_SECRET")
    done = deploy("status")

    assert done.status == 0
    assert f"drift       ~ image: {NEW} -> {OLD}" in done.out
    assert "EMBEDDING_HMAC_SECRET" not in done.out
    assert len(api.changes) == before


def test_looking_wakes_and_keeps_no_worker(deploy, api, worker):
    """No job is sent unless --ask is given, and then only where a worker is ready."""
    deploy.apply()
    jobs = len(worker)

    assert '"identityMismatchReason": "not asked; --ask sends a job"' in deploy("status").out
    assert "no worker is ready to be asked" in deploy("status", "--ask").out
    assert len(worker) == jobs


def test_json_is_all_that_stdout_gets(deploy, api, worker):
    """What is said of waits and of the file goes to stderr."""
    deploy.write(CONFIG + VOLUME.replace("20", "40"))
    deploy.apply()
    deploy.write(CONFIG + VOLUME)
    api.fail_next("GET /v2/serverless", rate_limited(2))
    done = deploy("status", "--json")

    assert json.loads(done.out)["drift"] == []
    assert "trying again in 2 s\n! volume.size_gb: weights has 40 GB" in done.err
