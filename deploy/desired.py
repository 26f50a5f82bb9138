"""From a configuration to what RunPod's API is sent, and from what it answers to the same form.

Both sides are one flat mapping of the API's dotted names, so that a plan is the difference of two mappings.
RunPod appends ` -fb` to the names of endpoints with flashboot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final


if TYPE_CHECKING:
    from collections.abc import Mapping

    from deploy.config import Config

Fields = dict[str, Any]

MS_PER_S: Final = 1000
FLASHBOOT: Final = {"off": "OFF", "on": "FLASHBOOT", "priority": "PRIORITY_FLASHBOOT"}
UNORDERED: Final = {"gpu.pools", "gpu.excludedTypes", "dataCenterIds", "networkVolumes", "ports"}
# What the API reads as one: of these, all are sent when one changes.
TOGETHER: Final = (
    ("gpu.pools", "gpu.excludedTypes"),
    ("gpu.minCudaVersion", "gpu.allowedCudaVersions"),
    ("workers.min", "workers.max", "workers.idleTimeout"),
)
ENV: Final = "env."


def desired(
    config: Config, *, secrets: Mapping[str, str], volume_id: str | None, registry_id: str | None
) -> Fields:
    """Return every field of the endpoint that *config* asks for."""
    fields: Fields = {
        "name": config.name,
        "type": config.type.upper(),
        "image": config.image,
        "disk": config.container_disk_gb,
        "registry": registry_id,
        "workers.min": config.workers.min,
        "workers.max": config.workers.max,
        "scaling": _scaling(config),
        "timeout": config.execution_timeout_s * MS_PER_S,
        "flashboot": FLASHBOOT[config.flashboot],
        "dataCenterIds": [config.volume.data_center] if config.volume else list(config.data_centers),
        "networkVolumes": [volume_id] if volume_id else [],
        "ports": _ports(config),
    }
    if config.idle_timeout_s is not None:
        fields["workers.idleTimeout"] = config.idle_timeout_s
    variables = {**config.env, **secrets, **_own_variables(config)}
    return fields | _compute(config) | {f"{ENV}{name}": value for name, value in variables.items()}


def actual(endpoint: Mapping[str, Any]) -> Fields:
    """Return the same fields of an endpoint as the API describes it; those it leaves out are left out."""
    fields: Fields = {"name": endpoint["name"].removesuffix(" -fb")}
    for name in ("type", "image", "disk", "registry", "timeout", "flashboot", "scaling"):
        if name in endpoint:
            fields[name] = endpoint[name]
    fields |= {
        name: sorted(endpoint.get(name) or []) for name in ("dataCenterIds", "networkVolumes", "ports")
    }
    fields |= {f"workers.{name}": value for name, value in endpoint["workers"].items() if value is not None}
    fields |= {f"{ENV}{name}": value for name, value in (endpoint.get("env") or {}).items()}
    if gpu := endpoint.get("gpu"):
        fields |= {
            "gpu.pools": gpu.get("pools") or [],
            "gpu.excludedTypes": [each.strip() for each in gpu.get("excludedTypes") or []],
            "gpu.count": gpu.get("count", 1),
            "gpu.minCudaVersion": gpu.get("minCudaVersion") or "",
            "gpu.allowedCudaVersions": gpu.get("allowedCudaVersions") or [],
        }
    if cpus := endpoint.get("cpu"):
        fields["cpu"] = [{"id": cpu["id"], "vcpuCount": cpu["vcpuCount"]} for cpu in cpus]
    return fields


def is_same(name: str, one: Any, other: Any) -> bool:
    """Return whether two values of a field mean the same."""
    if name in UNORDERED:
        return sorted(one) == sorted(other)
    return bool(one == other)


def create_body(fields: Fields) -> dict[str, Any]:
    """Return the body of `POST /serverless`; what stands for nothing there is left out."""
    empty: Fields = {
        "gpu.minCudaVersion": "",
        "gpu.allowedCudaVersions": [],
        "gpu.excludedTypes": [],
        "registry": None,
    }
    return _nested({name: value for name, value in fields.items() if empty.get(name, ...) != value})


def update_body(wanted: Fields, changed: set[str]) -> dict[str, Any]:
    """Return the body of `PATCH /serverless/ID` for the *changed* names of *wanted*.

    `env` replaces the endpoint's, so all of it is sent when a variable changes.
    """
    names = set(changed)
    for group in TOGETHER:
        names |= set(group) if names & set(group) else set()
    if any(name.startswith(ENV) for name in changed):
        names |= {name for name in wanted if name.startswith(ENV)}
    body = _nested({name: value for name, value in wanted.items() if name in names})
    if any(name.startswith(ENV) for name in changed):
        body.setdefault("env", {})
    return body


def _nested(fields: Fields) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for name, value in fields.items():
        table, _, key = name.partition(".")
        if key:
            body.setdefault(table, {})[key] = value
        else:
            body[table] = value
    return body


def _compute(config: Config) -> Fields:
    if config.cpu:
        return {"cpu": [{"id": config.cpu.flavor, "vcpuCount": config.cpu.vcpus}]}
    if config.gpu is None:
        return {}
    return {
        "gpu.pools": list(config.gpu.pools),
        "gpu.excludedTypes": list(config.gpu.excluded_types),
        "gpu.count": config.gpu.count,
        "gpu.minCudaVersion": config.gpu.min_cuda_version,
        "gpu.allowedCudaVersions": [],
    }


def _scaling(config: Config) -> dict[str, Any]:
    if config.scaling.request_count is not None:
        return {"type": "REQUEST_COUNT", "requestCount": config.scaling.request_count}
    return {"type": "QUEUE_DELAY", "queueDelay": config.scaling.queue_delay_s}


def _ports(config: Config) -> list[str]:
    if config.is_queue:
        return []
    ports = {config.listens.port, config.listens.health_port or config.listens.port}
    return sorted(f"{port}/http" for port in ports)


def _own_variables(config: Config) -> dict[str, str]:
    """Return the variables that the image needs and the keys imply."""
    variables = {"IMAGE_DIGEST": config.digest} if config.digest else {}
    if config.is_queue:
        return variables
    health_port = config.listens.health_port or config.listens.port
    return variables | {
        "WORKER_MODE": "http",
        "PORT": str(config.listens.port),
        "PORT_HEALTH": str(health_port),
        "HEALTH_CHECK_PATH": config.listens.health_path,
    }
