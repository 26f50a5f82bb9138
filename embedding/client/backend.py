"""Which worker a command asks: the arguments --endpoint, --url and --local, and the client that they make.

Who the caller is stands in the environment alone, where no list of processes shows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from embedding.client.environment import async_client_of
from embedding.client.plain import Client
from embedding.settings import ClientSettings


if TYPE_CHECKING:
    import argparse

ENVIRONMENT: Final = """\
The environment says who you are: RUNPOD_API_KEY for --endpoint, EMBEDDING_HMAC_SECRET to sign, WORKER_TOKEN
for --url. With none of --endpoint, --url and --local, CLIP_INFERENCE_BACKEND chooses, as for the clients.
--local loads the model that CLIP_MODEL_NAME and CLIP_PRETRAINED, or MODEL_PATH, name."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments that choose a worker to *command*."""
    where = command.add_mutually_exclusive_group()
    where.add_argument("--endpoint", metavar="ID", help="a queue endpoint of RunPod")
    where.add_argument("--url", help="an HTTP service, https://host or http://127.0.0.1:8000")
    where.add_argument("--local", action="store_true", help="this machine, in this process")


def client_settings(options: argparse.Namespace) -> ClientSettings:
    """Return the settings of the client that *options* ask for, none of them --local. Raises StartupError."""
    given: dict[str, str] = {}
    if options.endpoint is not None:
        given = {"CLIP_INFERENCE_BACKEND": "runpod_serverless", "RUNPOD_ENDPOINT_ID": options.endpoint}
    elif options.url is not None:
        given = {"CLIP_INFERENCE_BACKEND": "runpod_pod", "CLIP_POD_BASE_URL": options.url}
    return ClientSettings.from_env(overrides=given)


def client_of(options: argparse.Namespace) -> Client:
    """Return the client that *options* ask for. Raises StartupError."""
    if options.local:
        from embedding.local import local_client  # noqa: PLC0415  imports torch

        return local_client()
    return Client(async_client_of(client_settings(options)))
