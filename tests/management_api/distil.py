"""Distil the management API's OpenAPI document to what the loopback server needs: routes, statuses, schemas.

    python -m tests.management_api.distil PATH_TO_OPENAPI > tests/management_api/schemas.json

Descriptions and examples are left out, so that what decides stays readable: everything else is as it was.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


ROUTES = (
    "GET /v2/serverless",
    "POST /v2/serverless",
    "GET /v2/serverless/{id}",
    "PATCH /v2/serverless/{id}",
    "DELETE /v2/serverless/{id}",
    "GET /v2/serverless/{id}/workers",
    "GET /v2/serverless/{id}/releases",
    "GET /v2/network-volumes",
    "POST /v2/network-volumes",
    "GET /v2/network-volumes/{id}",
    "PATCH /v2/network-volumes/{id}",
    "DELETE /v2/network-volumes/{id}",
    "GET /v2/registries",
    "POST /v2/registries",
    "GET /v2/registries/{id}",
    "DELETE /v2/registries/{id}",
    "GET /v2/catalog/gpus",
    "GET /v2/catalog/gpus/{id}",
    "GET /v2/catalog/datacenters",
    "GET /v2/catalog/datacenters/{id}",
)
SCHEMAS = "#/components/schemas/"
PROSE = frozenset({"description", "examples", "example", "x-enum-varnames"})


def distil(document: dict[str, Any]) -> dict[str, Any]:
    """Return `routes` (schema of request and of success, all statuses) and the `components` they need."""
    routes = {route: _route(document, route) for route in ROUTES}
    needed = {"ErrorResponse"}
    for route in routes.values():
        needed |= {name for name in [route["request"], *route["answers"].values()] if name}
    schemas = document["components"]["schemas"]
    found: dict[str, Any] = {}
    while needed:
        name = needed.pop()
        found[name] = _without_prose(schemas[name])
        needed |= _references(found[name]) - found.keys()
    return {
        "version": document["info"]["version"],
        "routes": routes,
        "components": {"schemas": dict(sorted(found.items()))},
    }


def _route(document: dict[str, Any], route: str) -> dict[str, Any]:
    method, path = route.split()
    operation = document["paths"][path][method.lower()]
    answers = operation["responses"]
    return {
        "request": _schema_name(operation.get("requestBody")),
        "answers": {status: _schema_name(answers[status]) for status in answers if status.startswith("2")},
        "statuses": sorted(answers),
    }


def _schema_name(part: dict[str, Any] | None) -> str | None:
    if not part or "content" not in part:
        return None
    name: str = part["content"]["application/json"]["schema"]["$ref"].removeprefix(SCHEMAS)
    return name


def _without_prose(schema: Any, *, names_are_fields: bool = False) -> Any:
    if isinstance(schema, list):
        return [_without_prose(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _without_prose(part, names_are_fields=key == "properties")
        for key, part in schema.items()
        if names_are_fields or key not in PROSE
    }


def _references(schema: Any) -> set[str]:
    if isinstance(schema, list):
        return set().union(*map(_references, schema))
    if not isinstance(schema, dict):
        return set()
    own = {schema["$ref"].removeprefix(SCHEMAS)} if isinstance(schema.get("$ref"), str) else set()
    return own.union(*map(_references, schema.values()))


def to_text(distilled: dict[str, Any]) -> str:
    """Return the text of schemas.json."""
    return json.dumps(distilled, indent=1) + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.management_api.distil PATH_TO_OPENAPI")
    print(to_text(distil(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))), end="")
