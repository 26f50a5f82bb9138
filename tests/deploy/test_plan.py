"""From a configuration to request bodies, and which differences count."""

from __future__ import annotations

import tomllib

import pytest

from deploy.config import parse
from deploy.desired import actual, create_body, desired, update_body
from deploy.plan import changes_between
from tests.deploy.conftest import CONFIG, OLD


SECRETS = {"EMBEDDING_HMAC_SECRET": "the-value"}


def fields(extra="", **overrides):
    """Return the fields that a configuration asks for."""
    document = tomllib.loads(CONFIG + extra) | overrides
    config = parse({key: value for key, value in document.items() if value is not None}, source="f")
    return desired(config, secrets=SECRETS, volume_id=None, registry_id=None)


def endpoint(**overrides):
    """Return the endpoint that RunPod makes of the plain configuration."""
    made = create_body(fields())
    made["gpu"] |= {"allowedCudaVersions": []}
    made |= {"id": "e", "registry": None} | overrides
    return {name: value for name, value in made.items() if name != "type" or value}


def told(there, wanted):
    """Return the differences as they are shown."""
    return [str(change) for change in changes_between(actual(there), wanted, secret_names=set(SECRETS))]


def test_a_create_says_everything_that_runpod_would_default():
    """Timeout and flashboot are always sent: the API's own defaults are not what is documented."""
    assert create_body(fields()) == {
        "name": "clip",
        "type": "QUEUE",
        "image": OLD,
        "disk": 20,
        "workers": {"min": 0, "max": 3, "idleTimeout": 10},
        "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4},
        "timeout": 600_000,
        "flashboot": "FLASHBOOT",
        "dataCenterIds": [],
        "networkVolumes": [],
        "ports": [],
        "gpu": {"pools": ["AMPERE_16", "ADA_24"], "count": 1, "minCudaVersion": "13.0"},
        "env": {
            "RUNPOD_LOG_LEVEL": "INFO",
            "EMBEDDING_HMAC_SECRET": "the-value",
            "IMAGE_DIGEST": "sha256:" + 64 * "1",
        },
    }


def test_a_load_balancer_is_told_where_to_listen():
    """The image becomes the HTTP service, on the ports that the platform asks."""
    made = create_body(
        fields(type="load_balancer", scaling={"request_count": 4}, http={"port": 9000, "health_port": 9001})
    )

    assert made["ports"] == ["9000/http", "9001/http"]
    assert made["env"].items() >= {
        "WORKER_MODE": "http", "PORT": "9000", "PORT_HEALTH": "9001", "HEALTH_CHECK_PATH": "/ping"
    }.items()  # fmt: skip


SAME = {
    "as made": {},
    "the name with flashboot's mark": {"name": "clip -fb"},
    "pools in another order": {
        "gpu": {"pools": ["ADA_24", "AMPERE_16"], "count": 1, "minCudaVersion": "13.0"}
    },
    "a number as a float": {"scaling": {"type": "QUEUE_DELAY", "queueDelay": 4.0}},
    "empty lists left out": {"ports": None, "networkVolumes": None},
    "no type": {"type": None},
    "fields that nobody asked for": {"args": "", "createdAt": "now"},
}


@pytest.mark.parametrize("there", SAME.values(), ids=SAME.keys())
def test_what_means_the_same_is_no_change(there):
    """An endpoint that RunPod words otherwise is left alone."""
    assert told(endpoint(**there), fields()) == []


def test_a_change_sends_only_itself():
    """A patch holds what differs, and what the API reads together with it."""
    wanted = fields(workers={"max": 5})

    assert told(endpoint(), wanted) == ["~ workers.max: 3 -> 5"]
    assert update_body(wanted, {"workers.max"}) == {"workers": {"min": 0, "max": 5, "idleTimeout": 10}}


def test_pools_are_sent_with_their_exclusions():
    """A patch of pools without them would clear them; a CUDA set gives way to a floor."""
    wanted = fields(gpu={"pools": ["ADA_24"], "excluded_types": ["NVIDIA L4"]})

    assert update_body(wanted, {"gpu.pools"})["gpu"] == {"pools": ["ADA_24"], "excludedTypes": ["NVIDIA L4"]}
    assert update_body(wanted, {"gpu.minCudaVersion"})["gpu"] == {
        "minCudaVersion": "13.0",
        "allowedCudaVersions": [],
    }


def test_a_variable_that_goes_is_removed_and_not_shown():
    """A patch replaces all variables, so one that is left out is gone; its value may have been a secret."""
    there = endpoint()
    there["env"]["HF_TOKEN"] = "hf_value"
    wanted = fields()

    assert told(there, wanted) == ["- env.HF_TOKEN: (removed)"]
    assert update_body(wanted, {"env.HF_TOKEN"}) == {"env": create_body(wanted)["env"]}


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("another", "~ env.EMBEDDING_HMAC_SECRET: (secret) -> (secret, changed)"),
        ("****", "~ env.EMBEDDING_HMAC_SECRET: (secret) -> (secret, sent)"),
        ("the-value", None),
        (None, "+ env.EMBEDDING_HMAC_SECRET: (secret)"),
    ],
)
def test_a_secret_is_compared_and_never_shown(value, line):
    """The diff says that a secret changes; one that the API masks is sent again."""
    there = endpoint()
    there["env"] |= {"EMBEDDING_HMAC_SECRET": value}
    there["env"] = {name: each for name, each in there["env"].items() if each is not None}

    assert told(there, fields()) == [line] * (line is not None)
