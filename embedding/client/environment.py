"""A client as the environment describes it, so that one program reaches a queue here and a Pod there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedding.client.arguments import credential, signing_key, web_url
from embedding.client.clients import AsyncClient, AsyncHttpClient, AsyncServerlessClient
from embedding.client.errors import NotConfigured
from embedding.client.plain import Client
from embedding.errors import StartupError


if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import SecretStr

    from embedding.settings import ClientSettings


def client_from_env(**options: Any) -> Client:
    """Return the client that the environment describes.

    `CLIP_INFERENCE_BACKEND` chooses: `runpod_serverless` (the default) takes `RUNPOD_ENDPOINT_ID` and
    `RUNPOD_API_KEY`; `runpod_pod` takes `CLIP_POD_BASE_URL`, `CLIP_POD_TIMEOUT_S` (60) and `WORKER_TOKEN`.
    Both take `EMBEDDING_HMAC_SECRET`, `EXPECTED_WORKER_GIT_COMMIT` and `EXPECTED_WORKER_IMAGE_DIGEST`.
    *options* are other arguments of the client, concurrency say.
    Raises NotConfigured naming every variable that is missing or wrong; ValueError for an option.
    """
    return Client(async_client_from_env(**options))


def async_client_from_env(**options: Any) -> AsyncClient:
    """Return the client that the environment describes, for coroutines; as `client_from_env`."""
    return async_client_of(settings_from_env(), **options)


def settings_from_env(
    overrides: Mapping[str, str] | None = None, *, url_name: str = "CLIP_POD_BASE_URL"
) -> ClientSettings:
    """Return what the environment says of a client; *overrides* are what a command line says instead.

    Raises NotConfigured naming all that is missing or wrong, the service's address by *url_name*.
    """
    from embedding.settings import ClientSettings  # noqa: PLC0415  pydantic at the first need

    try:
        settings = ClientSettings.from_env(overrides=overrides)
    except StartupError as fault:
        raise NotConfigured(str(fault)) from None
    if faults := _faults(settings, url_name):
        raise NotConfigured("; ".join(faults))
    return settings


def async_client_of(settings: ClientSettings, **options: Any) -> AsyncClient:
    """Return the client that *settings* describe. Raises ValueError if one of the *options* is wrong."""
    options = {
        "secret": _plain(settings.hmac_secret),
        "expected_commit": settings.expected_commit,
        "expected_digest": settings.expected_digest,
        **options,
    }
    if settings.backend == "runpod_pod":
        options = {"token": _plain(settings.worker_token), "timeout_s": settings.pod_timeout_s, **options}
        return AsyncHttpClient(settings.pod_base_url or "", **options)
    return AsyncServerlessClient(
        settings.endpoint_id or "",
        _plain(settings.api_key) or "",
        **{"api_url": settings.api_url, **options},
    )


def _faults(settings: ClientSettings, url_name: str) -> list[str]:
    """Return what is wrong with values that each are of their form."""
    token, api_key = _plain(settings.worker_token), _plain(settings.api_key)
    checks: list[Callable[[], Any]] = [lambda: signing_key(_plain(settings.hmac_secret))]
    if settings.backend == "runpod_pod":
        checks.append(lambda: token is None or credential(token, "WORKER_TOKEN"))
        checks.append(lambda: web_url(settings.pod_base_url or "", url_name, bearer=token))
    else:
        checks.append(lambda: credential(api_key or "", "RUNPOD_API_KEY"))
        checks.append(lambda: web_url(settings.api_url, "RUNPOD_ENDPOINT_BASE_URL", bearer=api_key))
    faults = []
    for check in checks:
        try:
            check()
        except ValueError as fault:
            faults.append(str(fault))
    return faults


def _plain(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
