"""What the API's document says about each route: the fields of bodies and answers, and the statuses.

The document calls a request that breaks a schema 422 and names each failure as "$.path: what is wrong".
Its `format: uri` is not checked: its own examples hold addresses with `{job_id}` in them, which are no URIs.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema_rs import Draft202012Validator


DISTILLED = Path(__file__).with_name("schemas.json")


@cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(DISTILLED.read_text(encoding="utf-8"))
    return document


def routes() -> dict[str, dict[str, Any]]:
    """Return, by "METHOD /path": `request` and `answers` (names of schemas) and `statuses`."""
    found: dict[str, dict[str, Any]] = _document()["routes"]
    return found


def request_faults(route: str, body: Any) -> list[str]:
    """Return what the schema of *route*'s request has against *body*, as the API words it."""
    name = routes()[route]["request"]
    return _faults(name, body, closed=False) if name else []


def answer_faults(route: str, status: int, body: Any) -> list[str]:
    """Return why *route* may not answer with *status* and *body*; unknown fields count as well."""
    known = routes()[route]
    if str(status) not in known["statuses"] and "default" not in known["statuses"]:
        return [f"{route} never answers {status}"]
    name = known["answers"].get(str(status)) if status < 400 else "ErrorResponse"
    if status < 400 and str(status) not in known["answers"]:
        return [f"{route} never answers {status}"]
    if name is None:
        return [] if body is None else [f"{route} answers {status} without a body"]
    return _faults(name, body, closed=True)


def _faults(name: str, value: Any, *, closed: bool) -> list[str]:
    errors = _validator(name, closed=closed).iter_errors(value)
    return sorted(f"{_path(error.instance_path)}: {error.message}" for error in errors)


@cache
def _validator(name: str, *, closed: bool) -> Draft202012Validator:
    schema = {"$ref": f"#/components/schemas/{name}", "components": _document()["components"]}
    return Draft202012Validator(schema | ({"unevaluatedProperties": False} if closed else {}))


def _path(parts: list[str | int]) -> str:
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
