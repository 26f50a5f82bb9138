"""While RunPod replaces workers, an older one may answer the smoke test: its answer is no proof."""

from __future__ import annotations

import signal

import pytest

from tests.deploy.conftest import CONFIG, NEW, OLD, SECRET
from tests.deploy.stand_in import answer, stand_in_worker
from tests.deploy.test_trouble import process
from tests.management_api import refused


WORKERS = "GET /v2/serverless/{id}/workers"
NEXT = "n" * 40


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch):
    monkeypatch.setattr("deploy.smoke.RETRY_S", 0.05)


def has_older(api):
    """Return whether workers of an older release are there."""
    workers = api._call(api._store.workers, api.endpoints[0]["id"])["workers"]
    return any(each["isStale"] for each in workers)


def test_the_older_workers_answer_is_not_taken(deploy, api, platform):
    """Though it is good; the jobs are sent again when the last older worker has gone."""
    api.plan_workers((0.0, "IDLE"), rollout_step_s=0.4)
    answered = []

    def identity():
        answered.append(OLD if has_older(api) else api.endpoints[0]["image"])
        return {"declaredImageDigest": answered[-1].split("@")[1]}

    with stand_in_worker(platform, identity=identity):
        deploy.apply("--workers-min", "2")
        answered.clear()
        done = deploy.apply("--workers-min", "2", "--image", NEW)

    assert (done.status, answered[0], answered[-1]) == (0, OLD, NEW)
    assert "✓ identity as expected" in done.out


def test_an_older_worker_that_stays_proves_nothing(deploy, api, worker):
    """New workers that cannot start are not taken for good because an older one still answers."""
    api.plan_workers((0.0, "IDLE"), rollout_step_s=30)
    deploy.apply()
    api.scale("endpoint1", 1)
    deploy.write(CONFIG + 'CLIP_MODEL_NAME = "no-such-model"\n')
    done = deploy.apply("--wait-s", "0.4")

    assert done.status == 1
    assert "✗ a worker of an older release may have answered: they have not all gone yet\n" in done.out
    assert "smoke test FAILED" in done.out


def test_an_older_workers_refusal_fails_nothing(deploy, api, platform, monkeypatch):
    """A secret that is added is not known to them: the jobs are sent again, until a new worker answers."""
    api.plan_workers((0.0, "IDLE"), rollout_step_s=0.2)
    refusals = []

    def reply(job_input, identity):
        if job_input.get("auth", {}).get("kid") == "2026-12" and has_older(api):
            refusals.append(job_input)
            return {"error": "AUTH_FAILED: unknown key"}
        return answer(job_input, identity)

    with stand_in_worker(platform, identity=dict, reply=reply):
        deploy.apply("--workers-min", "2")
        monkeypatch.setenv("EMBEDDING_HMAC_SECRET", f"default:{SECRET},2026-12:{NEXT}")
        done = deploy.apply("--workers-min", "2")

    assert (done.status, bool(refusals)) == (0, True), done.all


@pytest.mark.usefixtures("worker")
def test_workers_that_are_not_told_fail_nothing(deploy, api):
    """Looking at workers is for those who wait: without it the job is the proof, and the doubt is told."""
    api.fail_next(WORKERS, refused(403, "access denied"), times=50)
    done = deploy.apply("--workers-min", "1")

    assert done.status == 0
    assert "! whether a worker is ready is not known: GET /v2/serverless/endpoint1/workers" in done.out
    assert "- RunPod does not tell its workers: whether an older one answered is not known\n" in done.out


def test_ctrl_c_leaves_no_job(deploy, api, platform):
    """A job that nobody waits for any more must wake no worker."""
    before = platform.health()["jobs"]["inQueue"]
    waiting = process(deploy, "apply", "--yes")
    api.wait_for(WORKERS, count=3)
    assert platform.health()["jobs"]["inQueue"] == before + 1
    waiting.send_signal(signal.SIGINT)
    deploy.told += waiting.communicate()

    assert (waiting.returncode, platform.health()["jobs"]["inQueue"]) == (130, before)
