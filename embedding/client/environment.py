"""A client as the environment describes it, so that one program reaches a queue here and a Pod there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedding.client.clients import AsyncClient, AsyncHttpClient, AsyncServerlessClient
from embedding.client.plain import Client
from embedding.errors import StartupError


if TYPE_CHECKING:
    from pydantic import SecretStr

    from embedding.settings import ClientSettings


def client_from_env(**options: Any) -> Client:
    """Return the client that the environment describes.

    `CLIP_INFERENCE_BACKEND` chooses: `runpod_serverless` (the default) takes `RUNPOD_ENDPOINT_ID` and
    `RUNPOD_API_KEY`; `runpod_pod` takes `CLIP_POD_BASE_URL`, `CLIP_POD_TIMEOUT_S` (60) and `WORKER_TOKEN`.
    Both take `EMBEDDING_HMAC_SECRET`, `EXPECTED_WORKER_GIT_COMMIT` and `EXPECTED_WORKER_IMAGE_DIGEST`.
    *options* are other arguments of the client, concurrency say.
    Raises StartupError naming every variable that is missing or wrong.
    """
    return Client(async_client_from_env(**options))


def async_client_from_env(**options: Any) -> AsyncClient:
    """Return the client that the environment describes, for coroutines; as `client_from_env`."""
    from embedding.settings import ClientSettings  # noqa: PLC0415  pydantic at the first need

    return async_client_of(ClientSettings.from_env(), **options)


def async_client_of(settings: ClientSettings, **options: Any) -> AsyncClient:
    """Return the client that *settings* describe. Raises StartupError if one of them is wrong."""
    options = {
        "secret": _plain(settings.hmac_secret),
        "expected_commit": settings.expected_commit,
        "expected_digest": settings.expected_digest,
        **options,
    }
    try:
        if settings.backend == "runpod_pod":
            options = {"token": _plain(settings.worker_token), "timeout_s": settings.pod_timeout_s, **options}
            return AsyncHttpClient(settings.pod_base_url or "", **options)
        return AsyncServerlessClient(
            settings.endpoint_id or "",
            _plain(settings.api_key) or "",
            **{"api_url": settings.api_url, **options},
        )
    except ValueError as fault:
        raise StartupError(str(fault)) from None


def _plain(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
