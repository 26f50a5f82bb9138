"""What an endpoint becomes by a create or a patch, and which of those the API refuses beyond its schemas.

The rules are those of the document's descriptions, with three that users of the API report instead:
a `timeout` left out of a create is 0, not the 300000 of the document; `workers.idleTimeout` is refused (422)
on a queue endpoint that scales on requests; a `flashboot` left out is OFF, as documented.
Where neither says, it is chosen here: an unknown pool is 400, an unknown volume or registry 404,
`workers` of a patch is merged by key, and a CUDA set and floor may not meet through a patch either (400).
A created disk is 20 GB unless said: the document's examples show that.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .catalog import FLAVOR_GB_PER_VCPU, POOLS
from .wire import Refused, invalid


if TYPE_CHECKING:
    from collections.abc import Iterable

CONTAINER_DEFAULTS: dict[str, Any] = {
    "image": "",
    "args": "",
    "disk": 20,
    "ports": [],
    "env": {},
    "registry": None,
}
WORKER_DEFAULTS = {"min": 0, "max": 3, "idleTimeout": 10}
JOB_ROUTES = {
    "run": "run",
    "runSync": "runsync",
    "status": "status/{job_id}",
    "stream": "stream/{job_id}",
    "cancel": "cancel/{job_id}",
    "retry": "retry/{job_id}",
    "purgeQueue": "purge-queue",
    "health": "health",
}


@dataclass(slots=True)
class Account:
    """What else the account has that an endpoint may name; volumes as id and data center."""

    volumes: dict[str, str] = field(default_factory=dict)
    registries: set[str] = field(default_factory=set)


def created(body: dict[str, Any], account: Account) -> dict[str, Any]:
    """Return what a create of *body* makes, but for id, addresses and time; raise Refused."""
    if ("gpu" in body) == ("cpu" in body):
        raise Refused(400, "exactly one of gpu or cpu is required")
    if "templateId" in body:
        raise Refused(404, "template not found")
    endpoint = {
        **CONTAINER_DEFAULTS,
        "workers": {},
        "dataCenterIds": [],
        "networkVolumes": [],
        "timeout": 0,
        "flashboot": "OFF",
        **copy.deepcopy(body),
    }
    if "gpu" in body:
        endpoint["gpu"] = _gpu({"allowedCudaVersions": [], "minCudaVersion": None}, body["gpu"])
    else:
        endpoint["cpu"] = _cpu(body["cpu"])
    endpoint["workers"] = WORKER_DEFAULTS | endpoint["workers"]
    _check(endpoint, body, account)
    return endpoint


def patched(endpoint: dict[str, Any], body: dict[str, Any], account: Account) -> dict[str, Any]:
    """Return an endpoint after a patch: what *body* leaves out stays, `env` is replaced; raise Refused."""
    if "gpu" in body and "cpu" in body:
        raise Refused(400, "gpu and cpu are mutually exclusive")
    for family in ("gpu", "cpu"):
        if family in body and family not in endpoint:
            raise Refused(400, f"{family} cannot be set: the compute family of an endpoint is immutable")
    if "templateId" in body:
        raise Refused(404, "template not found")
    after = endpoint | copy.deepcopy(body)
    if "gpu" in body:
        after["gpu"] = _gpu(endpoint["gpu"], body["gpu"])
    if "cpu" in body:
        after["cpu"] = _cpu(body["cpu"])
    after["workers"] = WORKER_DEFAULTS | endpoint["workers"] | body.get("workers", {})
    _check(after, body, account)
    return after


def request_urls(endpoint_type: str, base: str) -> dict[str, str]:
    """Return where callers reach an endpoint whose routes lie below *base*."""
    if endpoint_type == "LOAD_BALANCER":
        return {"base": base, "health": f"{base}/ping"}
    return {name: f"{base}/{route}" for name, route in JOB_ROUTES.items()}


def _gpu(before: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    gpu = {"count": 1} | before | body
    if "pools" in body:
        gpu["excludedTypes"] = [name.strip() for name in body.get("excludedTypes", [])]
    _check_selection(gpu["pools"], gpu.get("excludedTypes", []))
    if not gpu.get("excludedTypes"):
        gpu.pop("excludedTypes", None)
    gpu["minCudaVersion"] = gpu["minCudaVersion"] or None
    if gpu["allowedCudaVersions"] and gpu["minCudaVersion"]:
        raise Refused(400, "gpu.allowedCudaVersions and gpu.minCudaVersion are mutually exclusive")
    return gpu


def _check_selection(pools: list[str], excluded: list[str]) -> None:
    if unknown := [pool for pool in pools if pool not in POOLS]:
        raise Refused(400, f"unknown GPU pool: {', '.join(unknown)}")
    types = {name for pool in pools for name in POOLS[pool]}
    if strange := [name for name in excluded if name not in types]:
        raise Refused(400, f"gpu.excludedTypes: not a GPU type in the selected pools: {', '.join(strange)}")
    if types == set(excluded):
        raise Refused(400, "gpu.excludedTypes leaves no GPU type in the selection")


def _cpu(configs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for config in configs:
        if config["id"] not in FLAVOR_GB_PER_VCPU:
            raise Refused(400, f"unknown CPU flavor: {config['id']}")
        if config["vcpuCount"] & (config["vcpuCount"] - 1):
            raise invalid("$.cpu: vcpuCount must be a power of two")
    return [c | {"memory": c["vcpuCount"] * FLAVOR_GB_PER_VCPU[c["id"]]} for c in configs]


def _check(endpoint: dict[str, Any], body: dict[str, Any], account: Account) -> None:
    """Check *endpoint* as it would be; drop the idle timeout where it does not apply."""
    scales_on_requests = endpoint["scaling"]["type"] == "REQUEST_COUNT"
    if endpoint["type"] == "LOAD_BALANCER" and not scales_on_requests:
        raise invalid("$.scaling.type: LOAD_BALANCER endpoints require REQUEST_COUNT")
    if endpoint["type"] == "QUEUE" and scales_on_requests:
        if "idleTimeout" in body.get("workers", {}):
            raise invalid("$.workers.idleTimeout: not applicable to QUEUE endpoints scaling on REQUEST_COUNT")
        del endpoint["workers"]["idleTimeout"]
    if endpoint["workers"]["min"] > endpoint["workers"]["max"]:
        raise invalid("$.workers.min: must not exceed workers.max")
    _check_named("network volume", endpoint["networkVolumes"], account.volumes)
    _check_named("registry", [endpoint["registry"]] if endpoint["registry"] else [], account.registries)
    places = {account.volumes[volume] for volume in endpoint["networkVolumes"]}
    if endpoint["dataCenterIds"] and not places <= set(endpoint["dataCenterIds"]):
        raise Refused(400, "network volume is not in one of the endpoint's data centers")


def _check_named(kind: str, ids: list[str], known: Iterable[str]) -> None:
    if any(name not in known for name in ids):
        raise Refused(404, f"{kind} not found")
