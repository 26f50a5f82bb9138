"""`apply` and `destroy`: what is created, changed and left alone, against an API that checks every body."""

from __future__ import annotations

import json
import threading

import pytest

from tests.deploy.conftest import CONFIG, NEW, OLD, PASSWORD, REGISTRY, SECRET, USERNAME, VOLUME


def sent(api):
    """Return the changes that were asked for, as method and route."""
    return [request.route for request in api.changes]


def test_creates_and_proves(deploy, api, worker):
    """A first apply creates the endpoint, runs a signed job on it, and prints a curl line."""
    done = deploy.apply()

    assert done.status == 0, done.all
    assert "null" not in done.out  # what is empty is no change
    (endpoint,) = api.endpoints
    assert (endpoint["image"], endpoint["timeout"], endpoint["flashboot"]) == (OLD, 600_000, "FLASHBOOT")
    assert endpoint["env"]["EMBEDDING_HMAC_SECRET"] == SECRET
    assert worker[0]["auth"]["v"] == 3
    assert "smoke test passed" in done.out
    assert "✓ identity as expected" in done.out
    assert (
        f'curl -s {endpoint["requestUrls"]["runSync"]} -H "Authorization: Bearer $RUNPOD_API_KEY"' in done.out
    )


def test_a_second_apply_changes_nothing(deploy, api, worker):
    """What is as asked is left alone, and said so."""
    deploy.write(CONFIG + VOLUME + REGISTRY)
    deploy.apply()
    before, jobs = sent(api), len(worker)
    done = deploy("apply")  # nobody has to be asked

    assert done.out == f"nothing to change: clip ({api.endpoints[0]['id']}) is as asked\n"
    assert (done.status, sent(api), len(worker)) == (0, before, jobs)
    assert before == ["POST /v2/network-volumes", "POST /v2/registries", "POST /v2/serverless"]


def test_a_change_is_shown_and_only_it_is_sent(deploy, api, worker):
    """A diff comes first; the endpoint is changed in place."""
    deploy.apply()
    done = deploy.apply("--workers-max", "5", "--timeout-s", "1800")

    assert done.out.startswith(
        "~ endpoint clip (endpoint1)\n    ~ workers.max: 3 -> 5\n    ~ timeout: 600000 -> 1800000\n"
    )
    assert api.changes[-1].body == {
        "workers": {"min": 0, "max": 5, "idleTimeout": 10},
        "timeout": 1_800_000,
    }
    assert len(api.endpoints) == 1


def test_a_rotated_secret_is_sent_and_not_shown(deploy, api, worker, monkeypatch):
    """The diff says that the secret changed."""
    deploy.apply()
    monkeypatch.setenv("EMBEDDING_HMAC_SECRET", f"default:{SECRET},next:{SECRET[::-1]}")
    done = deploy.apply()

    assert "    ~ env.EMBEDDING_HMAC_SECRET: (secret) -> (secret, changed)" in done.out
    assert api.endpoints[0]["env"]["EMBEDDING_HMAC_SECRET"].endswith(SECRET[::-1])
    assert SECRET[::-1] not in done.all


def test_a_volume_and_credentials_are_created_once_and_attached(deploy, api, worker):
    """They are found by name afterwards; a volume grows, and brings its data center along."""
    deploy.write(CONFIG + VOLUME + REGISTRY)
    deploy.apply()
    deploy.write((CONFIG + VOLUME + REGISTRY).replace("size_gb = 20", "size_gb = 30"))
    done = deploy.apply()

    assert "~ network volume weights: 20 -> 30 GB" in done.out
    (volume,), (endpoint,) = api.volumes, api.endpoints
    assert (volume["size"], endpoint["networkVolumes"]) == (30, [volume["id"]])
    assert endpoint["dataCenterIds"] == ["EU-RO-1"]
    assert endpoint["registry"] == api.registries[0]["id"]
    (created,) = [each for each in api.changes if each.route == "POST /v2/registries"]
    assert created.body == {"name": "private", "username": USERNAME, "password": PASSWORD}


REFUSED_VOLUMES = {
    "elsewhere": ('"EU-RO-1"', '"US-TX-3"', "is in EU-RO-1, not in US-TX-3; a volume cannot move"),
    "another kind": ("size_gb = 20", 'size_gb = 20\ntype = "HIGH_PERFORMANCE"', "which cannot be changed"),
}


@pytest.mark.parametrize(("old", "new", "told"), REFUSED_VOLUMES.values(), ids=REFUSED_VOLUMES.keys())
@pytest.mark.usefixtures("worker")
def test_a_volume_is_never_changed_into_another(deploy, api, old, new, told):
    """What RunPod cannot do to a volume is told before anything is sent."""
    deploy.write(CONFIG + VOLUME)
    deploy.apply()
    before = sent(api)
    deploy.write((CONFIG + VOLUME).replace(old, new))
    done = deploy.apply()

    assert (done.status, sent(api)) == (1, before)
    assert told in done.err


@pytest.mark.usefixtures("worker")
def test_a_volume_that_has_grown_is_large_enough(deploy, api):
    """A smaller size in the file is satisfied, with a warning, for every command; so is a record's."""
    deploy.write(CONFIG + VOLUME)
    deploy.apply()
    deploy.write(CONFIG.replace(OLD, NEW) + VOLUME.replace("20", "40"))
    deploy.apply()
    back = deploy("rollback", "--yes")
    deploy.write(CONFIG + VOLUME)

    assert (back.status, api.endpoints[0]["image"], api.volumes[0]["size"]) == (0, OLD, 40)
    assert "! volume.size_gb: weights has 40 GB, and can only grow; 20 GB are in it\n" in back.out
    assert deploy("status").status == 0
    assert deploy("destroy", "--yes", "--volume").status == 0
    assert (api.endpoints, api.volumes) == ([], [])


def test_a_dry_run_only_reads(deploy, api, tmp_path):
    """The bodies are printed, without secrets; nothing is sent or written."""
    deploy.write(CONFIG + VOLUME + REGISTRY)
    done = deploy("apply", "--dry-run")

    assert (done.status, api.changes, api.endpoints) == (0, [], [])
    body = json.loads(done.out.split("would send POST serverless\n")[1].removesuffix("nothing was sent\n"))
    assert body["networkVolumes"] == ["(to be created)"]
    assert body["env"]["EMBEDDING_HMAC_SECRET"] == "(secret)"
    assert not (tmp_path / "records").exists()


def test_nobody_to_ask_is_no_yes(deploy, api):
    """Without a terminal nothing is sent unless --yes is given."""
    done = deploy("apply")

    assert (done.status, api.changes) == (1, [])
    assert "hint: add --yes" in done.err


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ('type = "load_balancer"\nscaling = {request_count = 4}\n', "type QUEUE to LOAD_BALANCER"),
        ("", "gpu to cpu"),
    ],
)
def test_what_cannot_be_changed_in_place_is_told(deploy, api, worker, change, told):
    """Another type or another kind of hardware needs another endpoint."""
    deploy.apply()
    before = sent(api)
    text = change + CONFIG
    if not change:
        text = text.replace('[gpu]\npools = ["AMPERE_16", "ADA_24"]', '[cpu]\nflavor = "cpu5c"\nvcpus = 4')
    deploy.write(text)
    done = deploy.apply()

    assert (done.status, sent(api)) == (1, before)
    assert f"RunPod cannot change {told} in place" in done.err


def test_a_cpu_endpoint_and_one_that_scales_on_requests(deploy, api, worker):
    """A queue that counts requests has no idle timeout; neither it nor a CPU is sent again."""
    cpu = CONFIG.replace('[gpu]\npools = ["AMPERE_16", "ADA_24"]', '[cpu]\nflavor = "cpu5c"\nvcpus = 4')
    deploy.write(cpu + "[scaling]\nrequest_count = 4\n")

    assert deploy.apply().status == 0
    assert "nothing to change" in deploy.apply().out
    assert (api.endpoints[0]["cpu"][0]["vcpuCount"], api.endpoints[0]["workers"]) == (4, {"min": 0, "max": 3})


def test_several_of_one_name_are_told_apart_by_id(deploy, api, worker):
    """RunPod lets two endpoints have one name; then an id is asked for."""
    deploy.apply()
    body = {key: api.changes[0].body[key] for key in ("name", "type", "image", "gpu", "scaling")}
    api.add("POST /v2/serverless", body)
    done = deploy.apply("--workers-max", "5")

    assert done.status == 1
    assert "2 endpoints are called clip: endpoint1 (created" in done.err
    assert deploy.apply("--workers-max", "5", "--endpoint-id", "endpoint1").status == 0
    assert [each["workers"]["max"] for each in api.endpoints] == [5, 3]


def test_a_running_endpoint_is_waited_for(deploy, api, worker):
    """With workers.min a worker of the new release is waited for, and the older ones are told."""
    api.plan_workers((0.0, "INITIALIZING"), (0.2, "IDLE"), rollout_step_s=0.2)
    assert deploy.apply("--workers-min", "1").status == 0
    done = deploy.apply("--workers-min", "1", "--image", NEW)

    assert done.status == 0
    assert "workers: 1 idle, 1 of an older release; 0 of 1 workers on the newest release" in done.out
    assert "workers: 1 idle; 1 of 1 workers on the newest release" in done.out


@pytest.mark.parametrize(
    ("state", "hint"),
    [("UNHEALTHY", "a crash at start: their logs are in"), ("THROTTLED", "add pools to gpu.pools")],
)
def test_workers_that_never_come_are_explained(deploy, api, state, hint):
    """The wait ends with what the state means; the endpoint is there and recorded."""
    api.plan_workers((0.0, state))
    done = deploy("apply", "--yes", "--workers-min", "1", "--wait-s", "0.2")

    assert done.status == 1
    assert f"✗ no worker was ready in 0 s: workers: 1 {state.lower()}\n  hint: " in done.out
    assert hint in done.out
    assert "`python -m deploy rollback production` goes back" in done.out
    assert len(api.endpoints) == 1


def test_no_workers_no_smoke_test(deploy, api):
    """An endpoint that is switched off is applied, and nothing is waited for."""
    done = deploy.apply("--workers-max", "0")

    assert done.status == 0
    assert "workers.max is 0" in done.out


def test_a_tag_without_digest_is_warned_of(deploy, api, worker):
    """A tag may move, so a rollback to it may not be exact."""
    done = deploy.apply("--image", "you/worker:1")

    assert done.status == 0
    assert "! you/worker:1 has no digest: a tag may move, so a rollback may not be exact" in done.out
    assert "IMAGE_DIGEST" not in api.endpoints[0]["env"]


def test_destroys_after_showing(deploy, api, worker):
    """The endpoint goes, the volume stays unless asked for; a repeat says that nothing is there."""
    deploy.write(CONFIG + VOLUME)
    deploy.apply()

    assert deploy("destroy").status == 1
    assert deploy("destroy", "--dry-run").out.endswith("nothing was sent\n")
    assert len(api.endpoints) == 1
    done = deploy("destroy", "--yes")
    assert "- endpoint clip (endpoint2), with its queue and all its workers\n" in done.out
    assert done.out.endswith("endpoint endpoint2 is deleted\n")
    assert (api.endpoints, len(api.volumes)) == ([], 1)
    assert deploy("destroy", "--yes").out == "nothing is there: no endpoint is called clip\n"
    assert "network volume weights" in deploy("destroy", "--yes", "--volume").out
    assert api.volumes == []


def test_a_volume_that_others_use_stays(deploy, api, worker):
    """What another endpoint is attached to is not deleted."""
    deploy.write(CONFIG + VOLUME)
    deploy.apply()
    deploy.write(CONFIG.replace('"clip"', '"other"') + VOLUME)
    deploy.apply()
    done = deploy("destroy", "--yes", "--volume")

    assert done.status == 1
    assert "is attached to clip (endpoint2) too; it stays" in done.err
    assert (len(api.endpoints), len(api.volumes)) == (2, 1)


def test_two_at_once_make_one(deploy, api, worker):
    """Of two applies on one machine the second waits, and finds everything done."""
    statuses = []
    arguments = deploy.arguments("apply", "--yes")
    threads = [threading.Thread(target=lambda: statuses.append(deploy.main(*arguments).status)) for _ in "12"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert statuses == [0, 0]
    assert (len(api.endpoints), sent(api)) == (1, ["POST /v2/serverless"])
