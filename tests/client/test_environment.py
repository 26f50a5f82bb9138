"""Which client the environment describes."""

from __future__ import annotations

import pytest

from embedding.client import (
    AsyncHttpClient,
    AsyncServerlessClient,
    ClientError,
    NotConfigured,
    async_client_from_env,
    client_from_env,
)
from embedding.errors import StartupError
from embedding.settings import ClientSettings
from tests.client.scripted import scripted


SECRET = "a-secret-that-nobody-may-read-or-guess"
QUEUE = {"RUNPOD_ENDPOINT_ID": "x1", "RUNPOD_API_KEY": "key-of-nobody"}
POD = {"CLIP_INFERENCE_BACKEND": "runpod_pod", "CLIP_POD_BASE_URL": "https://pod.example"}
NAMES = [field.alias for field in ClientSettings.model_fields.values()]


@pytest.fixture
def environ(monkeypatch):
    """Return what sets the client's variables, and no others, for a test."""

    def put(values):
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return put


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (QUEUE, AsyncServerlessClient),
        (QUEUE | {"CLIP_INFERENCE_BACKEND": "runpod_serverless"}, AsyncServerlessClient),
        (QUEUE | {"CLIP_POD_BASE_URL": "https://pod.example"}, AsyncServerlessClient),
        (POD, AsyncHttpClient),
        (POD | QUEUE, AsyncHttpClient),
    ],
)
def test_backend_chooses(environ, values, kind):
    """CLIP_INFERENCE_BACKEND alone says which of two that are described it is."""
    environ(values)

    assert type(async_client_from_env()) is kind


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({}, ["RUNPOD_ENDPOINT_ID", "RUNPOD_API_KEY"]),
        ({"RUNPOD_ENDPOINT_ID": " ", "RUNPOD_API_KEY": ""}, ["RUNPOD_ENDPOINT_ID", "RUNPOD_API_KEY"]),
        ({"CLIP_INFERENCE_BACKEND": "runpod_pod"}, ["CLIP_POD_BASE_URL"]),
        (QUEUE | {"CLIP_INFERENCE_BACKEND": "local"}, ["CLIP_INFERENCE_BACKEND"]),
        (
            {"RUNPOD_API_KEY": "key", "CLIP_POD_TIMEOUT_S": "0", "CLIP_POD_BASE_URL": "pod.example"},
            ["RUNPOD_ENDPOINT_ID", "CLIP_POD_TIMEOUT_S", "CLIP_POD_BASE_URL"],
        ),
        (QUEUE | {"EMBEDDING_HMAC_SECRET": "short-and-secret"}, ["EMBEDDING_HMAC_SECRET"]),
        (QUEUE | {"RUNPOD_API_KEY": "two words"}, ["RUNPOD_API_KEY"]),
        (
            QUEUE | {"EMBEDDING_HMAC_SECRET": "short-and-secret", "RUNPOD_API_KEY": "two words"},
            ["EMBEDDING_HMAC_SECRET", "RUNPOD_API_KEY"],
        ),
        (QUEUE | {"RUNPOD_ENDPOINT_BASE_URL": "http://api.example/v2"}, ["RUNPOD_ENDPOINT_BASE_URL"]),
        (
            POD | {"CLIP_POD_BASE_URL": "http://pod.example", "WORKER_TOKEN": "token-of-nobody"},
            ["CLIP_POD_BASE_URL is plain http"],
        ),
        (QUEUE | {"RUNPOD_ENDPOINT_ID": "https://x/y"}, ["RUNPOD_ENDPOINT_ID"]),
    ],
)
def test_all_faults_are_told_together(environ, values, named):
    """Each variable that is missing or wrong is named, and no value is repeated."""
    environ(values)

    with pytest.raises(NotConfigured) as fault:
        client_from_env()
    assert isinstance(fault.value, ClientError)
    assert all(name in str(fault.value) for name in named)
    assert not any(value in str(fault.value) for value in ("short-and-secret", "two words", "token-of"))


def test_signing_needs_no_encryption(environ):
    """A service that is reached by plain http may be asked by signature."""
    environ(POD | {"CLIP_POD_BASE_URL": "http://pod.example", "EMBEDDING_HMAC_SECRET": SECRET})

    assert type(async_client_from_env()) is AsyncHttpClient


def test_an_option_that_is_wrong_is_no_fault_of_the_environment(environ):
    """It is a ValueError, as it is of the client itself."""
    environ(QUEUE)

    with pytest.raises(ValueError, match="concurrency is 0"):
        client_from_env(concurrency=0)


@pytest.mark.parametrize("value", ["0.001", "3599", "3600"])
def test_time_of_a_pod(value):
    """A Pod has up to an hour."""
    assert ClientSettings.from_env(POD | {"CLIP_POD_TIMEOUT_S": value}).pod_timeout_s == float(value)


@pytest.mark.parametrize("value", ["0", "-1", "3600.001", "soon"])
def test_time_of_a_pod_ends(value):
    """What lies outside is refused by the variable's name."""
    with pytest.raises(StartupError, match="CLIP_POD_TIMEOUT_S"):
        ClientSettings.from_env(POD | {"CLIP_POD_TIMEOUT_S": value})


def test_defaults():
    """Without more the queue is RunPod's, and a Pod has a minute."""
    settings = ClientSettings.from_env(QUEUE)

    assert (settings.backend, settings.pod_timeout_s) == ("runpod_serverless", 60)
    assert settings.api_url == "https://api.runpod.ai/v2"


def test_secrets_are_not_shown():
    """Neither key nor secret nor token stands in what a log may hold."""
    secrets = {"RUNPOD_API_KEY": "kkkk", "EMBEDDING_HMAC_SECRET": "ssss", "WORKER_TOKEN": "tttt"}
    shown = repr(ClientSettings.from_env(QUEUE | secrets))

    assert not any(value in shown for value in secrets.values())


def test_client_of_the_environment_embeds(environ):
    """Token, secret and expectations reach the service; arguments win over the environment."""
    with scripted() as script:
        token = {"WORKER_TOKEN": "token-of-nobody", "EMBEDDING_HMAC_SECRET": SECRET}
        environ(POD | {"CLIP_POD_BASE_URL": script.url} | token)
        with client_from_env(max_batch_size=1, concurrency=1) as client:
            client.embed_texts(["a", "b"])

    assert [asked.contents for asked in script.asked] == [["a"], ["b"]]
    assert script.asked[0].headers["Authorization"] == "Bearer token-of-nobody"
    assert script.asked[0].input["auth"]["kid"] == "default"


def test_queue_of_the_environment_embeds(environ):
    """Endpoint, key and the address of the platform are taken from where RunPod's own SDK has them."""
    with scripted() as script:
        environ(QUEUE | {"RUNPOD_ENDPOINT_BASE_URL": f"{script.url}/v2"})
        with client_from_env() as client:
            client.embed_text("a")

    assert script.asked[0].path.startswith("/v2/x1/runsync")
    assert script.asked[0].headers["Authorization"] == "Bearer key-of-nobody"
