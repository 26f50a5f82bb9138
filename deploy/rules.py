"""What the keys of a configuration demand of each other, and what the image demands to start.

RunPod refuses most of this itself, one fault a request, and lets the rest pass: an endpoint whose workers
cannot start. So it is judged here, on the document as it was written, before anything is sent.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from embedding.contract.keys import Keyring
from embedding.contract.tokens import Tokens


if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HMAC_SECRET: Final = "EMBEDDING_HMAC_SECRET"  # noqa: S105  (a name)
WORKER_TOKEN: Final = "WORKER_TOKEN"  # noqa: S105  (a name)
SECRET_NAME: Final = re.compile(
    r"(^|_)(SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIALS?|(API|ACCESS|PRIVATE|SECRET)?_?KEY)(_ID)?$",
    re.IGNORECASE,
)
OPEN_TO_ALL: Final = "ALLOW_INSECURE_AUTH"
OWN_VARIABLES: Final = {
    "IMAGE_DIGEST": "image",
    "WORKER_MODE": "type",
    "RUNPOD_SERVERLESS": "type",
    "PORT": "http.port",
    "PORT_HEALTH": "http.health_port",
    "HEALTH_CHECK_PATH": "http.health_path",
}


def faults_between(document: Mapping[str, Any]) -> list[str]:
    """Return a line for each rule between keys that *document*, valid or not in itself, breaks."""
    rules = (_image, _compute, _scaling, _workers, _places, _variables, _registry, _access)
    return [fault for rule in rules for fault in rule(document)]


def secret_faults(names: tuple[str, ...], environ: Mapping[str, str]) -> list[str]:
    """Return a line for each secret that *environ* does not have, or that the worker would not take."""
    faults = [
        f"secrets: {name} is not set in this shell" for name in names if not environ.get(name, "").strip()
    ]
    for name, parser in ((HMAC_SECRET, Keyring.parse), (WORKER_TOKEN, Tokens.parse)):
        if name in names and environ.get(name, "").strip():
            try:
                parser(environ[name].strip())
            except ValueError as fault:
                faults.append(f"secrets: {fault}")
    return faults


def _image(document: Mapping[str, Any]) -> Iterator[str]:
    image = document.get("image")
    if isinstance(image, str) and image.endswith("@sha256:" + 64 * "0"):
        yield "image: still the example's; name the image that you pushed"


def _compute(document: Mapping[str, Any]) -> Iterator[str]:
    if ("gpu" in document) == ("cpu" in document):
        yield "gpu, cpu: give exactly one of the two tables"
    vcpus = _at(document, "cpu", "vcpus")
    if isinstance(vcpus, int) and vcpus > 1 and vcpus & (vcpus - 1):
        yield f"cpu.vcpus: {vcpus} is not a power of two"


def _scaling(document: Mapping[str, Any]) -> Iterator[str]:
    scaling = document.get("scaling", {"queue_delay_s": 4})
    if not isinstance(scaling, dict):
        return
    counts = scaling.get("request_count") is not None
    if counts == (scaling.get("queue_delay_s") is not None):
        yield "scaling: give exactly one of queue_delay_s and request_count"
    if document.get("type") == "load_balancer" and not counts:
        yield "scaling: a load balancer has no queue; give request_count"
    idle_s = _at(document, "workers", "idle_timeout_s")
    if document.get("type", "queue") == "queue" and counts and idle_s is not None:
        yield "workers.idle_timeout_s: leave it out; a queue that scales on request_count has none"


def _workers(document: Mapping[str, Any]) -> Iterator[str]:
    least, most = _at(document, "workers", "min") or 0, _at(document, "workers", "max")
    most = 3 if most is None else most
    if isinstance(least, int) and isinstance(most, int) and least > most:
        yield f"workers.min: {least} is more than workers.max, {most}"
    if document.get("type") != "load_balancer" and "http" in document:
        yield 'http: only for type = "load_balancer"'


def _places(document: Mapping[str, Any]) -> Iterator[str]:
    home, places = _at(document, "volume", "data_center"), document.get("data_centers") or []
    if home is not None and places and list(places) != [home]:
        yield f"data_centers: the volume is in {home}, where alone it can be attached; leave the key out"


def _variables(document: Mapping[str, Any]) -> Iterator[str]:
    variables, secrets = _env(document), _secrets(document)
    for name in variables:
        if name in OWN_VARIABLES:
            yield f"env.{name}: set by this command; the key is {OWN_VARIABLES[name]}"
        elif SECRET_NAME.search(name):
            yield f"env.{name}: a secret; name it in `secrets` and give its value in the shell's environment"
        elif name in secrets:
            yield f"env.{name}: it is in `secrets` too"
    for name in sorted({name for name in secrets if secrets.count(name) > 1}):
        yield f"secrets: {name} stands there twice"


def _registry(document: Mapping[str, Any]) -> Iterator[str]:
    names = [_at(document, "registry", key) for key in ("username_env", "password_env")]
    if names.count(None) == 1:
        yield "registry: give both of username_env and password_env, or neither"


def _access(document: Mapping[str, Any]) -> Iterator[str]:
    """Say so if a worker would refuse to start because nobody could be let in."""
    is_queue = document.get("type", "queue") == "queue"
    ways = [HMAC_SECRET] if is_queue else [HMAC_SECRET, WORKER_TOKEN]
    is_open = str(_env(document).get(OPEN_TO_ALL, "")).strip().casefold() in {"1", "true", "yes", "on"}
    if not is_open and not set(ways) & set(_secrets(document)):
        yield f"secrets: the worker starts with {' or '.join(ways)} only, or with {OPEN_TO_ALL} = 1 in [env]"


def _at(document: Mapping[str, Any], table: str, key: str) -> Any:
    inner = document.get(table)
    return inner.get(key) if isinstance(inner, dict) else None


def _env(document: Mapping[str, Any]) -> dict[str, Any]:
    inner = document.get("env")
    return inner if isinstance(inner, dict) else {}


def _secrets(document: Mapping[str, Any]) -> list[str]:
    names = document.get("secrets")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list | tuple) else []
