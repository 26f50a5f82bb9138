"""When RunPod refuses, is slow, or answers get lost: what is told, and that nothing is made twice or lost."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from tests.deploy.conftest import API_KEY, CONFIG, NEW, REGISTRY, ROOT, VOLUME
from tests.management_api import (
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


CREATE = "POST /v2/serverless"
PATCH = "PATCH /v2/serverless/{id}"
REFUSALS = {
    "quota": (
        over_quota(5, 2),
        "must not exceed your workers quota (5)",
        "lower workers.max here or elsewhere",
    ),
    "422": (
        unprocessable("$.gpu.pools: too few", "$: additional properties 'bogus' not allowed"),
        (
            "with 422 Unprocessable Entity: Request validation failed.\n  $.gpu.pools: too few\n"
            "  $: additional properties 'bogus' not allowed"
        ),
        "pools in RunPod's catalog: ADA_24, ",
    ),
    "unknown pool": (refused(400, "unknown GPU pool: X"), "unknown GPU pool: X", "AMPERE_16"),
    "registry": (
        refused(404, "registry not found"),
        "404 Not Found: registry not found",
        "registry: check its name",
    ),
    "name": (refused(409, "endpoint name already exists"), "already exists", "--endpoint-id"),
    "key": (refused(401, "invalid token"), "401 Unauthorized", "RUNPOD_API_KEY is not accepted"),
    "rights": (refused(403, "access denied"), "403 Forbidden: access denied", "read and write access"),
    "data center": (refused(400, "unknown data center X"), "unknown data center X", "check data_centers"),
}


@pytest.mark.parametrize(("fault", "told", "hint"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_refusal_is_told_whole_with_a_hint(deploy, api, fault, told, hint):
    """Everything that RunPod says is shown, and what to do; the endpoint is not made, nothing is repeated."""
    api.fail_next(CREATE, fault)
    done = deploy.apply()

    assert (done.status, api.endpoints, len(api.changes)) == (1, [], 1)
    assert told in done.err
    assert hint in done.err.split("\nhint: ")[1]


def test_a_quota_is_told_by_the_api_itself(deploy, platform):
    """What the account may not have is RunPod's to say."""
    with ManagementApi(job_url=platform.endpoint_url, api_key=API_KEY, workers_quota=2) as api:
        deploy.api = api
        done = deploy.apply()

    assert done.status == 1
    assert "workers quota (2)" in done.err


def test_a_429_is_waited_for_as_told(deploy, api, worker):
    """Retry-After is honoured, also before a create: a request that was refused was not carried out."""
    api.fail_next(CREATE, rate_limited(1))
    started_s = time.monotonic()
    done = deploy.apply()

    assert (done.status, len(api.endpoints)) == (0, 1)
    assert 1.0 <= time.monotonic() - started_s < 3


def test_hours_are_not_waited_for(deploy, api):
    """A limit that ends in an hour ends the command, with what it says."""
    api.fail_next("GET /v2/serverless", rate_limited(3000))
    done = deploy.apply()

    assert (done.status, len(api.requests)) == (1, 1)
    assert "429 Too Many Requests: rate limit exceeded" in done.err


@pytest.mark.parametrize("fault", [broken(503), broken(500), DROPPED], ids=["503", "500", "dropped"])
def test_what_can_be_repeated_is(deploy, api, worker, fault):
    """Reads and patches are sent again after a failure of the server or of the line."""
    deploy.apply()
    api.fail_next("GET /v2/serverless", fault)
    api.fail_next(PATCH, fault)
    done = deploy.apply("--workers-max", "5")

    assert (done.status, api.endpoints[0]["workers"]["max"]) == (0, 5)


def test_a_server_that_stays_down_ends_the_command(deploy, api):
    """Repeats are bounded, and the last answer is told."""
    api.fail_next("GET /v2/serverless", broken(400), times=1)
    done = deploy.apply()

    assert done.status == 1
    assert "upstream request failed" in done.err


LOST = {
    "endpoint, after the effect": (CREATE, LOST_ANSWER),
    "endpoint, before it": (CREATE, DROPPED),
    "endpoint, 502": (CREATE, broken(502)),
    "volume, after the effect": ("POST /v2/network-volumes", LOST_ANSWER),
    "registry, after the effect": ("POST /v2/registries", LOST_ANSWER),
}


@pytest.mark.parametrize(("route", "fault"), LOST.values(), ids=LOST.keys())
@pytest.mark.usefixtures("worker")
def test_a_lost_answer_makes_nothing_twice(deploy, api, monkeypatch, route, fault):
    """After an answer that is lost the list is read, and only what is not there is created again."""
    monkeypatch.setattr("deploy.create.LOOKS_AFTER_S", (0.0, 0.1))
    deploy.write(CONFIG + VOLUME + REGISTRY)
    api.fail_next(route, fault)
    done = deploy.apply()

    assert (done.status, len(api.endpoints), len(api.volumes), len(api.registries)) == (0, 1, 1, 1)
    assert "looking whether it was made" in done.out


def process(deploy, *arguments):
    """Start the command line as a process of its own."""
    return subprocess.Popen(
        deploy.command(*deploy.arguments(*arguments)),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize("has_effect", [False, True], ids=["before its effect", "after it"])
def test_killed_between_volume_and_endpoint(deploy, api, worker, has_effect):
    """The next apply finds the volume, and the endpoint if it was made, and finishes the work."""
    deploy.write(CONFIG + VOLUME)
    api.fail_next(CREATE, stalled(has_effect=has_effect))
    killed = process(deploy, "apply", "--yes")
    api.wait_for(CREATE)
    killed.kill()
    deploy.told += killed.communicate()
    assert (len(api.volumes), len(api.endpoints)) == (1, int(has_effect))
    done = deploy.apply()

    assert done.status == 0
    assert (len(api.volumes), len(api.endpoints)) == (1, 1)
    assert api.endpoints[0]["networkVolumes"] == [api.volumes[0]["id"]]
    assert len([each for each in api.changes if each.route == "POST /v2/network-volumes"]) == 1


def test_ctrl_c_says_how_things_stand(deploy, api):
    """One line and status 130; the endpoint is there, and the next command finds it."""
    api.plan_workers((0.0, "INITIALIZING"))
    waiting = process(deploy, "apply", "--yes", "--workers-min", "1")
    api.wait_for("GET /v2/serverless/{id}/releases", count=3)
    waiting.send_signal(signal.SIGINT)
    out, err = waiting.communicate()
    deploy.told += [out, err]

    assert waiting.returncode == 130
    assert err == "interrupted; endpoint endpoint1 is as asked and recorded; its smoke test did not end\n"
    assert "workers: 1 initializing" in out


def test_two_machines_at_once_keep_the_older_endpoint(deploy, api, worker):
    """Records elsewhere, so no common lock: the younger twin is deleted by who made it."""
    api.fail_next(CREATE, stalled(0.7))
    slow = process(deploy, "apply", "--yes", "--records", str(deploy.folder / "elsewhere"))
    api.wait_for(CREATE)
    assert deploy.apply().status == 0
    out, err = slow.communicate()
    deploy.told += [out, err]

    assert (slow.returncode, [each["id"] for each in api.endpoints]) == (0, ["endpoint1"]), out + err
    assert "keeping it, deleting endpoint2" in out


def test_an_endpoint_deleted_meanwhile_is_told(deploy, api, worker):
    """What somebody else deleted between look and change is no mystery."""
    deploy.apply()
    api.fail_next(PATCH, refused(404, "endpoint not found"))
    done = deploy.apply("--image", NEW)

    assert done.status == 1
    assert "hint: it was deleted elsewhere; `status` shows what is there, `apply` makes it anew" in done.err


def test_without_a_key(deploy, api, monkeypatch):
    """The key comes from the environment only."""
    monkeypatch.setenv("RUNPOD_API_KEY", " ")
    done = deploy.apply()

    assert (done.status, api.requests) == (1, [])
    assert done.err.startswith("error: RUNPOD_API_KEY is not set\nhint: make a key")


@pytest.mark.parametrize("url", ["http://api.runpod.io/v2", "ftp://127.0.0.1", "nonsense"])
def test_the_key_goes_to_no_plain_address(deploy, api, url):
    """A key is sent by https, or to this machine."""
    done = deploy.apply("--api-url", url)

    assert done.status == 1
    assert f"error: {url} is no address for a key" in done.err


def test_what_the_api_repeats_of_a_secret_is_hidden(deploy, api):
    """An error that quotes the body does not tell what was in it: the fixture looks at all output."""
    secret = os.environ["EMBEDDING_HMAC_SECRET"]
    api.fail_next(CREATE, unprocessable(f"$.env.EMBEDDING_HMAC_SECRET: {secret} is too long", API_KEY))
    done = deploy.apply()

    assert "$.env.EMBEDDING_HMAC_SECRET: (secret) is too long\n  (secret)\n" in done.err


def test_a_terminal_is_asked(deploy, api, worker, monkeypatch):
    """At a terminal the answer decides, and silence is no."""
    monkeypatch.setattr("deploy.console.Console.is_terminal", True)
    for answer in ("", "n"):
        monkeypatch.setattr("builtins.input", lambda _, answer=answer: answer)
        assert deploy("apply").out.endswith("nothing was changed\n")
    assert api.changes == []
    monkeypatch.setattr("builtins.input", lambda _: "Y")
    assert deploy("apply").status == 0
    assert "nothing was deleted" in deploy("destroy").out
    monkeypatch.setattr("builtins.input", lambda _: "clip")
    assert deploy("destroy").status == 0
    assert api.endpoints == []
