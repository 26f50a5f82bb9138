"""Every environment variable of the worker and of its clients, each side's read once into a frozen object.

This module is the only place where the package reads the environment. `from_env` of both reports all faults
together, each naming its variable and limit, and never prints the value of a secret. Defaults that bound
strangers' work follow what imgproxy, smokescreen and vLLM ship, and RunPod's own payload limits.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError

from embedding.errors import StartupError


if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MINUTE_S = 60
MEBIBYTE = 1 << 20

Positive = Annotated[int, Field(ge=1)]
JobLoopName = Literal["event", "sdk"]


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


CommaList = Annotated[tuple[str, ...], BeforeValidator(_split)]


class Settings(BaseModel):
    """What the environment asks for. Field aliases are the variables' names."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    # How to run.
    serverless: bool = Field(default=False, alias="RUNPOD_SERVERLESS")
    worker_mode: Literal["queue", "http"] = Field(default="queue", alias="WORKER_MODE")
    host: str = Field(default="0.0.0.0", alias="HOST")  # noqa: S104  a container is reached from outside
    port: int = Field(default=8000, ge=0, le=65_535, alias="PORT")
    port_health: int | None = Field(default=None, ge=1, le=65_535, alias="PORT_HEALTH")
    serve_page: bool = Field(default=True, alias="SERVE_PAGE")

    # What to serve.
    clip_model_name: str | None = Field(default=None, alias="CLIP_MODEL_NAME")
    clip_pretrained: str | None = Field(default=None, alias="CLIP_PRETRAINED")
    model_path: Path | None = Field(default=None, alias="MODEL_PATH")
    served_name: str | None = Field(default=None, alias="MODEL_NAME", max_length=128)
    gpu_device: Annotated[int, Field(ge=0)] = Field(default=0, alias="GPU_DEVICE")
    precision: Literal["auto", "fp32", "fp16", "bf16"] = Field(default="auto", alias="CLIP_PRECISION")
    allow_demo_model: bool = Field(default=False, alias="ALLOW_DEMO_MODEL")
    model_roots: CommaList = Field(default=("/models", "/runpod-volume/models"), alias="MODEL_ROOTS")

    # Who may ask.
    hmac_secret: SecretStr | None = Field(default=None, alias="EMBEDDING_HMAC_SECRET")
    worker_token: SecretStr | None = Field(default=None, alias="WORKER_TOKEN")
    allow_insecure_auth: bool = Field(default=False, alias="ALLOW_INSECURE_AUTH")
    allow_operator_actions: bool = Field(default=False, alias="ALLOW_OPERATOR_ACTIONS")
    auth_window_s: int = Field(default=2 * MINUTE_S, ge=1, le=60 * MINUTE_S, alias="AUTH_TIME_WINDOW_SECONDS")
    auth_min_version: int = Field(default=1, ge=1, le=3, alias="AUTH_MIN_VERSION")

    # How much at once.
    max_batch_size: int = Field(default=64, ge=1, le=4096, alias="MAX_BATCH_SIZE")
    max_response_bytes: Positive = Field(default=10_000_000, alias="MAX_RESPONSE_SIZE_BYTES")  # RunPod's /run
    max_request_bytes: Positive = Field(
        default=30_000_000, alias="MAX_REQUEST_SIZE_BYTES"
    )  # RunPod's over HTTP
    worker_concurrency: int = Field(default=128, ge=3, le=4096, alias="WORKER_CONCURRENCY")
    job_loop: JobLoopName = Field(default="event", alias="JOB_LOOP")
    job_timeout_s: float = Field(default=120, gt=0, le=24 * 60 * MINUTE_S, alias="TOTAL_REQUEST_TIMEOUT_S")
    cache_max_bytes: int = Field(default=0, ge=0, alias="CACHE_MAX_BYTES")

    # What strangers may make this worker fetch and decode.
    max_image_bytes: int = Field(default=10 * MEBIBYTE, ge=1, le=512 * MEBIBYTE, alias="MAX_IMAGE_SIZE_BYTES")
    download_timeout_s: float = Field(default=10, gt=0, le=10 * MINUTE_S, alias="IMAGE_DOWNLOAD_TIMEOUT_S")
    download_concurrency: int = Field(default=32, ge=1, le=1024, alias="DOWNLOAD_CONCURRENCY")
    allow_http: bool = Field(default=False, alias="ALLOW_HTTP_URLS")
    allowed_domains: CommaList = Field(default=(), alias="ALLOWED_IMAGE_DOMAINS")

    # What operators may look at.
    list_files_roots: CommaList = Field(default=("/runpod-volume", "/models"), alias="LIST_FILES_ROOTS")

    # The smoke test's picture, if not the bundled one.
    smoke_test_image_url: str | None = Field(default=None, alias="SMOKE_TEST_IMAGE_URL")

    # Who started this worker: a program that reads its stdout?
    worker_events: bool = Field(default=False, alias="WORKER_EVENTS")

    # Who this worker is.
    git_commit: str | None = Field(default=None, alias="WORKER_GIT_COMMIT")
    build_time: str | None = Field(default=None, alias="WORKER_BUILD_TIME")
    image_digest: str | None = Field(default=None, alias="IMAGE_DIGEST")
    expected_commit: str | None = Field(default=None, alias="EXPECTED_WORKER_GIT_COMMIT")
    expected_digest: str | None = Field(default=None, alias="EXPECTED_WORKER_IMAGE_DIGEST")

    # What the platform says of itself.
    job_source_url: str | None = Field(default=None, alias="RUNPOD_WEBHOOK_GET_JOB")
    endpoint_id: str | None = Field(default=None, alias="RUNPOD_ENDPOINT_ID")
    realtime_port: int = Field(default=0, alias="RUNPOD_REALTIME_PORT")
    log_level: Annotated[
        Literal["NOTSET", "TRACE", "DEBUG", "INFO", "WARN", "ERROR"], BeforeValidator(str.upper)
    ] = Field(default="INFO", alias="RUNPOD_LOG_LEVEL")

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] = os.environ, overrides: Mapping[str, str] | None = None
    ) -> Settings:
        """Read *environ*, the process's own by default; an empty variable counts as not set.

        *overrides* are what a command line says instead.

        Raises StartupError naming every variable that is out of its limits.
        """
        return _read(cls, {**environ, **(overrides or {})})


class ClientSettings(BaseModel):
    """What the environment asks of a client: which worker it reaches, how, and what it expects there."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    backend: Literal["runpod_serverless", "runpod_pod"] = Field(
        default="runpod_serverless", alias="CLIP_INFERENCE_BACKEND"
    )
    # The queue.
    endpoint_id: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9_-]+$", max_length=128, alias="RUNPOD_ENDPOINT_ID"
    )
    api_key: SecretStr | None = Field(default=None, alias="RUNPOD_API_KEY")
    api_url: str = Field(
        default="https://api.runpod.ai/v2", pattern="^https?://", alias="RUNPOD_ENDPOINT_BASE_URL"
    )
    # The HTTP service.
    pod_base_url: str | None = Field(default=None, pattern="^https?://", alias="CLIP_POD_BASE_URL")
    pod_timeout_s: float = Field(default=60, gt=0, le=60 * MINUTE_S, alias="CLIP_POD_TIMEOUT_S")
    worker_token: SecretStr | None = Field(default=None, alias="WORKER_TOKEN")
    # Either.
    hmac_secret: SecretStr | None = Field(default=None, alias="EMBEDDING_HMAC_SECRET")
    expected_commit: str | None = Field(default=None, alias="EXPECTED_WORKER_GIT_COMMIT")
    expected_digest: str | None = Field(default=None, alias="EXPECTED_WORKER_IMAGE_DIGEST")

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] = os.environ, overrides: Mapping[str, str] | None = None
    ) -> ClientSettings:
        """Read *environ*, the process's own by default; an empty variable counts as not set.

        *overrides* are what a command line says instead.

        Raises StartupError naming every variable that is missing or out of its limits.
        """
        environ = {**environ, **(overrides or {})}
        is_pod = environ.get("CLIP_INFERENCE_BACKEND", "").strip() == "runpod_pod"
        needed = ("CLIP_POD_BASE_URL",) if is_pod else ("RUNPOD_ENDPOINT_ID", "RUNPOD_API_KEY")
        return _read(cls, environ, needed)


S = TypeVar("S", bound=BaseModel)


def _read(kind: type[S], environ: Mapping[str, str], needed: Sequence[str] = ()) -> S:
    given = {name: value.strip() for name, value in environ.items() if value.strip()}
    faults = [f"{name}: it is not set" for name in needed if name not in given]
    try:
        settings = kind.model_validate(given)
    except ValidationError as fault:
        faults += [f"{error['loc'][0]}: {error['msg']}" for error in fault.errors()]
    if faults:
        msg = f"the environment is not valid: {'; '.join(faults)}"
        raise StartupError(msg) from None
    return settings


def environment_of_children(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return *environ* without this worker's secrets, and without what the platform tells it alone."""
    secrets = {
        field.alias for field in Settings.model_fields.values() if SecretStr in get_args(field.annotation)
    }
    return {
        name: value
        for name, value in environ.items()
        if name not in secrets and not name.startswith("RUNPOD_")
    }


def wants_events(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether WORKER_EVENTS is on; asked apart, so that a start that fails by another is told of."""
    try:
        return TypeAdapter(bool).validate_python(environ.get("WORKER_EVENTS", "").strip() or "0")
    except ValidationError:
        return False


def export_log_level(level: str) -> None:
    """Let RunPod's SDK log at *level*: it reads the variable when imported, and fails on an empty one."""
    os.environ["RUNPOD_LOG_LEVEL"] = level


def unknown_variables(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return a line for each variable of *environ* that looks like a mistyped name of ours."""
    known = {field.alias for field in Settings.model_fields.values() if field.alias}
    lines = []
    for name in sorted(set(environ) - known):
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.87)
        if close:
            lines.append(f"{name} is not a setting of this worker; did you mean {close[0]}?")
    return lines
