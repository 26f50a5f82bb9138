"""The routes of the API: what each does to the store, and which filters of the catalog count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import catalog
from .wire import Answer, Refused, invalid


if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .store import Store


@dataclass(frozen=True, slots=True)
class Call:
    """One request as a route sees it: the id in its path, its query, its body; "" and None where absent."""

    id: str
    query: Mapping[str, str]
    body: Any


def table(store: Store) -> dict[str, Callable[[Call], Answer]]:
    """Return what answers each route, by "METHOD /path"; each may raise Refused."""
    return {
        "GET /v2/serverless": lambda _: Answer(200, {"endpoints": store.list("endpoints")}),
        "POST /v2/serverless": lambda call: Answer(201, store.create_endpoint(call.body)),
        "GET /v2/serverless/{id}": lambda call: Answer(200, store.get("endpoints", call.id)),
        "PATCH /v2/serverless/{id}": lambda call: Answer(200, store.patch_endpoint(call.id, call.body)),
        "DELETE /v2/serverless/{id}": lambda call: Answer(204, store.delete("endpoints", call.id)),
        "GET /v2/serverless/{id}/workers": lambda call: Answer(200, store.workers(call.id)),
        "GET /v2/serverless/{id}/releases": lambda call: Answer(200, store.releases(call.id)),
        "GET /v2/network-volumes": lambda _: Answer(200, {"networkVolumes": store.list("volumes")}),
        "POST /v2/network-volumes": lambda call: Answer(201, store.create_volume(call.body)),
        "GET /v2/network-volumes/{id}": lambda call: Answer(200, store.get("volumes", call.id)),
        "PATCH /v2/network-volumes/{id}": lambda call: Answer(200, store.patch_volume(call.id, call.body)),
        "DELETE /v2/network-volumes/{id}": lambda call: Answer(204, store.delete("volumes", call.id)),
        "GET /v2/registries": lambda _: Answer(200, {"registries": store.list("registries")}),
        "POST /v2/registries": lambda call: Answer(201, store.create_registry(call.body)),
        "GET /v2/registries/{id}": lambda call: Answer(200, store.get("registries", call.id)),
        "DELETE /v2/registries/{id}": lambda call: Answer(204, store.delete("registries", call.id)),
        "GET /v2/catalog/gpus": lambda call: Answer(200, {"gpus": _gpus(call)}),
        "GET /v2/catalog/gpus/{id}": lambda call: Answer(200, _one(_gpus(call), call)),
        "GET /v2/catalog/datacenters": lambda _: Answer(200, {"dataCenters": catalog.data_centers()}),
        "GET /v2/catalog/datacenters/{id}": lambda call: Answer(200, _one(catalog.data_centers(), call)),
    }


def _gpus(call: Call) -> list[dict[str, Any]]:
    has_stock = "include" in call.query
    if has_stock and call.query["include"] != "AVAILABILITY":
        raise invalid("$.include: must be AVAILABILITY")
    if has_stock != ("product" in call.query):
        raise Refused(400, "include=AVAILABILITY and product are required together")
    return catalog.gpu_types(has_stock=has_stock)


def _one(items: list[dict[str, Any]], call: Call) -> dict[str, Any]:
    for item in items:
        if item["id"] == call.id:
            return item
    raise Refused(404, "resource not found")
