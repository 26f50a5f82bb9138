"""What the account holds: endpoints with their fleets, network volumes, registry credentials.

Names need not be unique here, as the document says of volumes: two creates make two of a kind.
Deleting a volume that an endpoint has is refused (400) by choice; the document is silent.
Deleting a credential takes it off the endpoints that used it, as the document says of templates.
"""

from __future__ import annotations

import copy
import itertools
import time
from typing import Any

from . import endpoints
from .catalog import DATA_CENTERS
from .endpoints import Account
from .faults import quota_text
from .wire import Refused
from .workers import Fleet, Plan, timestamp


class Store:
    """All state of the API. Everything given out is a copy."""

    def __init__(self, job_url: str | None, workers_quota: int | None) -> None:
        self.plan = Plan()
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.volumes: dict[str, dict[str, Any]] = {}
        self.registries: dict[str, dict[str, Any]] = {}
        self._fleets: dict[str, Fleet] = {}
        self._job_url = job_url
        self._workers_quota = workers_quota
        self._numbers = itertools.count(1)

    def list(self, kind: str) -> list[dict[str, Any]]:
        """Return all of a kind, endpoints, volumes or registries, in the order of their creation."""
        return copy.deepcopy(list(getattr(self, kind).values()))

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """Return one of a kind by its id; raise Refused."""
        return copy.deepcopy(self._found(kind, name))

    def create_endpoint(self, body: dict[str, Any]) -> dict[str, Any]:
        """Create an endpoint, its first release and its minimum of workers."""
        endpoint = endpoints.created(body, self._account())
        self._check_quota(None, endpoint)
        name = f"endpoint{next(self._numbers)}"
        default = f"https://{name}.api.runpod.ai" if body["type"] == "LOAD_BALANCER" else None
        base = self._job_url or default or f"https://api.runpod.ai/v2/{name}"
        urls = endpoints.request_urls(body["type"], base)
        given = {"id": name, "requestUrls": urls, "createdAt": timestamp()}
        self._fleets[name] = Fleet()
        self._fleets[name].release({}, endpoint, self.plan, time.monotonic())
        self.endpoints[name] = given | endpoint
        return self.get("endpoints", name)

    def patch_endpoint(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        """Change an endpoint; a body that changes nothing makes no release."""
        before = self._found("endpoints", name)
        after = endpoints.patched(before, body, self._account())
        self._check_quota(name, after)
        self._fleets[name].release(before, after, self.plan, time.monotonic())
        self.endpoints[name] = after
        return self.get("endpoints", name)

    def delete(self, kind: str, name: str) -> None:
        """Delete one of a kind by its id."""
        self._found(kind, name)
        users = self.endpoints.values() if kind != "endpoints" else ()
        for endpoint in users:
            if name in endpoint["networkVolumes"]:
                raise Refused(400, f"network volume is in use by endpoint {endpoint['id']}")
            if name == endpoint["registry"]:
                endpoint["registry"] = None
        del getattr(self, kind)[name]

    def create_volume(self, body: dict[str, Any]) -> dict[str, Any]:
        """Create a network volume; without a type it is of its data center's first."""
        if body["dataCenter"] not in DATA_CENTERS:
            raise Refused(400, f"unknown data center: {body['dataCenter']}")
        name = f"volume{next(self._numbers)}"
        self.volumes[name] = {"id": name, "type": "STANDARD"} | body
        return self.get("volumes", name)

    def patch_volume(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        """Rename or enlarge a volume."""
        volume = self._found("volumes", name)
        if body.get("size", volume["size"]) < volume["size"]:
            raise Refused(400, f"size cannot be reduced from {volume['size']} GB")
        volume |= body
        return self.get("volumes", name)

    def create_registry(self, body: dict[str, Any]) -> dict[str, Any]:
        """Keep a credential, of which only the name is ever told."""
        name = f"registry{next(self._numbers)}"
        self.registries[name] = {"id": name, "name": body["name"]}
        return self.get("registries", name)

    def workers(self, name: str) -> dict[str, Any]:
        """Return an endpoint's workers as they are now."""
        endpoint = self._found("endpoints", name)
        return self._fleets[name].workers(endpoint, self.plan, time.monotonic())

    def releases(self, name: str) -> dict[str, Any]:
        """Return an endpoint's releases, and how many workers run the latest."""
        self._found("endpoints", name)
        return self._fleets[name].history(time.monotonic())

    def scale(self, name: str, count: int) -> None:
        """Have *count* workers, as jobs would bring about."""
        image = self._found("endpoints", name)["image"]
        self._fleets[name].scale(count, image, time.monotonic())

    def _found(self, kind: str, name: str) -> dict[str, Any]:
        known: dict[str, dict[str, Any]] = getattr(self, kind)
        if name not in known:
            raise Refused(404, "resource not found")
        return known[name]

    def _account(self) -> Account:
        places = {name: volume["dataCenter"] for name, volume in self.volumes.items()}
        return Account(places, set(self.registries))

    def _check_quota(self, name: str | None, endpoint: dict[str, Any]) -> None:
        if self._workers_quota is None:
            return
        others = sum(other["workers"]["max"] for key, other in self.endpoints.items() if key != name)
        if others + endpoint["workers"]["max"] > self._workers_quota:
            raise Refused(400, quota_text(self._workers_quota, max(0, self._workers_quota - others)))
