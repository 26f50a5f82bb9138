"""Which worker a command asks: the arguments --endpoint, --url and --local, and what they stand for.

Who the caller is stands in the environment alone, where no list of processes shows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from embedding.client.arguments import endpoint, web_url
from embedding.client.environment import async_client_of, settings_from_env
from embedding.client.errors import NotConfigured
from embedding.client.plain import Client
from embedding.errors import StartupError
from embedding.installed import require_worker
from embedding.settings import Settings


if TYPE_CHECKING:
    import argparse

    from embedding.settings import ClientSettings

ENVIRONMENT: Final = """\
The environment says who you are: RUNPOD_API_KEY for --endpoint, EMBEDDING_HMAC_SECRET to sign, WORKER_TOKEN
for --url. With none of --endpoint, --url and --local, CLIP_INFERENCE_BACKEND chooses, as for the clients:
runpod_serverless, the default, with RUNPOD_ENDPOINT_ID, or runpod_pod with CLIP_POD_BASE_URL.
--local loads the model that CLIP_MODEL_NAME and CLIP_PRETRAINED, or MODEL_PATH, name; ALLOW_DEMO_MODEL=1
without them takes the embedded one, which knows drawn shapes alone."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments that choose a worker to *command*."""
    where = command.add_mutually_exclusive_group()
    where.add_argument("--endpoint", metavar="ID", help="a queue endpoint of RunPod")
    where.add_argument("--url", help="an HTTP service, https://host or http://127.0.0.1:8000")
    where.add_argument("--local", action="store_true", help="this machine, in this process")


def client_of(options: argparse.Namespace) -> Client:
    """Return the client that *options* ask for. Raises NotConfigured."""
    if options.local:
        settings = local_settings()
        from embedding.local import local_client  # noqa: PLC0415  imports torch

        return local_client(settings)
    return Client(async_client_of(client_settings(options)))


def client_settings(options: argparse.Namespace) -> ClientSettings:
    """Return the settings of the client that *options* other than --local ask for. Raises NotConfigured."""
    try:
        if options.endpoint is not None:
            name = endpoint(options.endpoint, "--endpoint")
            return settings_from_env(
                {"CLIP_INFERENCE_BACKEND": "runpod_serverless", "RUNPOD_ENDPOINT_ID": name}
            )
        if options.url is not None:
            given = {"CLIP_POD_BASE_URL": web_url(options.url, "--url", bearer=None)}
            return settings_from_env({"CLIP_INFERENCE_BACKEND": "runpod_pod"} | given, url_name="--url")
    except ValueError as fault:
        raise NotConfigured(str(fault)) from None
    try:
        return settings_from_env()
    except NotConfigured as fault:
        told = f"no worker is named: give --url, --endpoint or --local; without them {fault}"
        raise NotConfigured(told) from None


def local_settings() -> Settings:
    """Return the settings of a worker in this process.

    Raises NotConfigured if its packages are missing, or nobody said which model: the demo is never meant.
    """
    try:
        require_worker("--local")
        settings = Settings.from_env(overrides={"RUNPOD_SERVERLESS": "0", "WORKER_MODE": "queue"})
    except StartupError as fault:
        raise NotConfigured(str(fault)) from None
    if settings.model_path is None and settings.clip_model_name is None and not settings.allow_demo_model:
        raise NotConfigured(
            "--local: no model is chosen, and the embedded demo model knows only drawn shapes: set "
            "CLIP_MODEL_NAME and CLIP_PRETRAINED, or MODEL_PATH; ALLOW_DEMO_MODEL=1 takes the demo model"
        )
    return settings
