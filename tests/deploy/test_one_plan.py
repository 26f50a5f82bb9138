"""One plan is shown, agreed to, recorded and sent, once; what was done is said when a command ends early."""

from __future__ import annotations

import itertools
import signal

import pytest

from deploy.api import Api
from deploy.records import Records
from tests.deploy.conftest import CONFIG, NEW, OLD, REGISTRY, VOLUME
from tests.deploy.test_trouble import CREATE, PATCH, process
from tests.management_api import DROPPED, over_quota, refused, stalled


OTHER = f"docker.io/you/worker:3@sha256:{'3' * 64}"


def by_another(api, **fields):
    """Change the endpoint as another machine or the console would."""
    api._call(api._store.patch_endpoint, api.endpoints[0]["id"], fields)


def outcomes(deploy):
    """Return how each recorded apply went."""
    return [record.outcome for record in Records(deploy.folder / "records", "production").all()]


def test_what_changed_while_it_was_asked_is_shown_again(deploy, api, worker, monkeypatch):
    """Nobody's change is undone by a yes to another diff."""
    deploy.apply()
    monkeypatch.setattr("deploy.console.Console.is_terminal", True)
    answers = iter("yn")

    def typed(_):
        if (answer := next(answers)) == "y":
            by_another(api, image=OTHER)
        return answer

    monkeypatch.setattr("builtins.input", typed)
    done = deploy("apply", "--workers-max", "4")

    first, second = done.out.split("! RunPod changed meanwhile; from what it has now:\n")
    assert OTHER not in first
    assert f"~ image: {OTHER} -> {OLD}" in second
    assert (done.status, api.endpoints[0]["image"], api.endpoints[0]["workers"]["max"]) == (1, OTHER, 3)


def test_a_yes_is_for_one_plan(deploy, api, worker, monkeypatch):
    """With --yes nobody sees another diff, so the command ends."""
    deploy.apply()
    lists = itertools.count()
    there = Api.endpoints

    def endpoints(self):
        if next(lists):
            by_another(api, image=OTHER)
        return there(self)

    monkeypatch.setattr(Api, "endpoints", endpoints)
    done = deploy.apply("--workers-max", "4")

    assert (done.status, len(api.changes)) == (1, 1)
    assert done.err == "error: RunPod changed meanwhile: run the command again\n"


def test_sent_once_and_read_back(deploy, api, worker, monkeypatch):
    """What another's change took away again is told, and not sent again."""
    deploy.apply()
    update = Api.update_endpoint

    def overtaken(self, *arguments):
        update(self, *arguments)
        by_another(api, image=OTHER)

    monkeypatch.setattr(Api, "update_endpoint", overtaken)
    done = deploy.apply("--image", NEW)

    assert f"! RunPod has not taken: ~ image: {OTHER} -> {NEW}" in done.out
    assert ([each.method for each in api.changes], api.endpoints[0]["image"]) == (["POST", "PATCH"], OTHER)


def test_a_list_that_lags_makes_no_second_endpoint(deploy, api, worker, monkeypatch):
    """The id of the create's answer is what counts from then on."""
    monkeypatch.setattr(Api, "endpoints", lambda _: [])
    done = deploy.apply()

    assert (done.status, len(api.endpoints)) == (0, 1), done.all
    assert "not taken" not in done.out


def test_a_twin_that_came_later_is_not_ours(deploy, api, worker, monkeypatch):
    """Whoever created the older endpoint goes on with it, though a younger one has its name."""
    create = Api.create_endpoint

    def first(self, body):
        made = create(self, body)
        api.add(CREATE, body)
        return made

    monkeypatch.setattr(Api, "create_endpoint", first)
    done = deploy.apply()

    assert done.status == 0, done.all
    assert "endpoint clip is endpoint1\n" in done.out


STATES = {
    "volume": (VOLUME, "POST /v2/network-volumes", "network volume weights may or may not have been created"),
    "registry": (
        REGISTRY,
        "POST /v2/registries",
        "registry credentials private may or may not have been created",
    ),
    "endpoint": (
        VOLUME,
        CREATE,
        "network volume volume1 was created; endpoint clip may or may not have been created",
    ),
}


@pytest.mark.parametrize(("more", "route", "told"), STATES.values(), ids=STATES.keys())
def test_ctrl_c_never_says_that_nothing_happened(deploy, api, more, route, told):
    """While a request is out, what it may do is the state; what was done before stays in it."""
    deploy.write(CONFIG + more)
    api.fail_next(route, stalled(has_effect=True))
    waiting = process(deploy, "apply", "--yes")
    api.wait_for(route)
    waiting.send_signal(signal.SIGINT)
    out, err = waiting.communicate()
    deploy.told += [out, err]

    assert (waiting.returncode, err) == (130, f"interrupted; {told}: run the command again to see\n")


def test_an_error_says_what_was_done_before(deploy, api):
    """A volume that was created for an endpoint that was refused is not forgotten."""
    deploy.write(CONFIG + VOLUME)
    api.fail_next(CREATE, over_quota())
    done = deploy.apply()

    assert done.err.endswith("\nstate: network volume volume1 was created\n")
    assert outcomes(deploy) == ["refused"]


@pytest.mark.usefixtures("worker")
def test_what_was_deleted_before_a_refusal_is_told(deploy, api):
    """The endpoint is gone, though its volume could not be deleted."""
    deploy.write(CONFIG + VOLUME)
    deploy.apply()
    api.fail_next("DELETE /v2/network-volumes/{id}", refused(400, "no"))

    assert deploy("destroy", "--yes", "--volume").err.endswith("\nstate: endpoint endpoint2 is deleted\n")


def test_missing_credentials_are_told_before_anything_is_made(deploy, api, monkeypatch):
    """No volume is paid for by an apply that cannot succeed."""
    monkeypatch.setenv("REGISTRY_PASSWORD", "")
    deploy.write(CONFIG + VOLUME + REGISTRY)

    assert "registry: REGISTRY_PASSWORD is not set in this shell" in deploy.apply().err
    assert api.changes == []


@pytest.mark.parametrize("has_file", [True, False])
def test_registry_credentials_are_hidden(deploy, api, worker, has_file):
    """Whatever repeats them, also where only a record names their variables: the fixture looks at all."""
    deploy.write(CONFIG + REGISTRY)
    deploy.apply()
    deploy.write(CONFIG.replace(OLD, NEW))
    deploy.apply()
    by_another(api, registry=None)
    api._store.registries.clear()
    deploy.write(CONFIG + REGISTRY if has_file else "name = ")
    body = api.changes[0].body
    api.fail_next("POST /v2/registries", refused(422, f"not {body['username']}, {body['password']}"))

    assert "422 Unprocessable Entity: not (secret), (secret)" in deploy("rollback", "--yes").err


def test_a_drained_endpoint_stays_as_it_is(deploy, api):
    """No worker at most is none at least; a second drain has nothing to do, and records nothing."""
    deploy.write(CONFIG.replace("[env]", "[workers]\nmin = 1\n[env]"))
    first, second = deploy.apply("--workers-max", "0"), deploy.apply("--workers-max", "0")

    assert (first.status, api.endpoints[0]["workers"]["min"], outcomes(deploy)) == (0, 0, ["applied"])
    assert second.out == "nothing to change: clip (endpoint1) is as asked\n"


def test_a_lost_patch_leaves_its_record(deploy, api, worker, monkeypatch):
    """It may have taken effect, so a rollback has to know of it."""
    monkeypatch.setattr("deploy.api.ATTEMPTS", 1)
    deploy.apply()
    api.fail_next(PATCH, DROPPED)
    done = deploy.apply("--image", NEW)

    assert "state: endpoint endpoint1 may or may not have been changed: run the command again" in done.err
    assert outcomes(deploy) == ["smoke passed", "sent"]
