"""What `/openapi.json` says of bodies: requests as the contract's models have them, and every answer.

Requests come from the models that judge them. Answers are written here, closed (no field that is not named),
so a test that validates real answers notices each field that is added, renamed or dropped.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter

from embedding.contract.openai import EmbeddingsInput
from embedding.contract.requests import BatchRequest, ImageRequest, Item, TextRequest
from embedding.contract.responses import Served, Timings
from embedding.errors import WorkerError
from embedding.serve.http.state import State


if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic import BaseModel

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string"}
WHOLE: Final[Schema] = {"type": "integer", "minimum": 0}
NUMBER: Final[Schema] = {"type": "number"}
FLAG: Final[Schema] = {"type": "boolean"}
SWITCH: Final[Schema] = {"anyOf": [FLAG, {"enum": [1, 0]}]}  # in a query or a form
TEXT_OR_NULL: Final[Schema] = {"type": ["string", "null"]}
BINARY: Final[Schema] = {"type": "string", "format": "binary"}
VECTOR: Final[Schema] = {
    "anyOf": [
        {"type": "array", "items": NUMBER, "minItems": 1},
        {"type": "string", "contentEncoding": "base64"},
    ],
    "description": "numbers, or base64 of little-endian numbers of embed_dtype",
}
ANYTHING_ELSE: Final[Schema] = {"title": "anything else", "description": "becomes an error in its place"}
_AUTH: Final = "a signature, where no bearer token stands for it; see the top of this page"


def ref(name: str) -> Schema:
    """Return what refers to the component *name*."""
    return {"$ref": f"#/components/schemas/{name}"}


def components(*, max_batch_size: int | None) -> dict[str, Schema]:
    """Return the shared schemas by name; *max_batch_size* None tells no limit."""
    models: list[type[BaseModel]] = [ImageRequest, TextRequest, BatchRequest, Item, EmbeddingsInput]
    image, text, batch, item, openai = map(_request, models)
    openai["properties"]["auth"] = item["properties"]["auth"]  # the contract takes it out before it judges
    texts = text["properties"]["texts"]["anyOf"][0]
    texts["items"] = {"anyOf": [item["properties"]["text"]["anyOf"][0], ANYTHING_ELSE]}
    items = batch["properties"]["items"]
    items["items"] = {"anyOf": [ref("Item"), ANYTHING_ELSE]}
    images = {"type": "array", "items": BINARY, "minItems": 1}
    for many in (texts, items, images, openai["properties"]["input"]["anyOf"][1]):
        many.update({"maxItems": max_batch_size} if max_batch_size else {})
    return {
        "ImageRequest": image,
        "TextRequest": text,
        "BatchRequest": batch,
        "Item": item,
        "EmbeddingsRequest": openai,
        "ImageForm": _form(image=BINARY),
        "ImageBatchForm": _form(images=images),
        **_answers(),
        **_states(),
    }


def options() -> dict[str, Schema]:
    """Return the fields that a query or a form may hold beside a picture; there a field is never null."""
    fields = _request(ImageRequest)["properties"]
    told = {name: field for name, field in fields.items() if name not in {*ImageRequest.SOURCES, "action"}}
    plain = {name: {**field.pop("anyOf", [{}])[0], **field} for name, field in told.items()}
    plain["auth"]["type"] = "object"
    plain["normalize"] = SWITCH | {"default": plain["normalize"]["default"]}
    return plain


def codes_by_status() -> dict[int, list[str]]:
    """Return the codes that each HTTP status can carry."""
    found: dict[int, set[str]] = defaultdict(set)
    for error in _errors(WorkerError):
        found[error.http_status].add(error.code)
    return {status: sorted(codes) for status, codes in sorted(found.items())}


def _errors(error: type[WorkerError]) -> Iterator[type[WorkerError]]:
    yield error
    for each in error.__subclasses__():
        yield from _errors(each)


def _request(model: type[BaseModel]) -> Schema:
    """Return the schema of *model*; a route knows its action, so `action` may be left out."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    if "action" in schema.get("required", []):
        schema["required"].remove("action")
    if not schema.get("required"):
        schema.pop("required", None)
    for field in schema["properties"].values():
        field.pop("title", None)
        if "default" in field and field["default"] is None:
            del field["default"]
    if "auth" in schema["properties"]:
        schema["properties"]["auth"]["description"] = _AUTH
    return schema


def _form(**picture: Schema) -> Schema:
    schema = _object({**picture, **options()}, optional=options())
    return schema | {"anyOf": _request(ImageRequest)["anyOf"]}


def _object(properties: dict[str, Schema], *, optional: Iterable[str] = ()) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def _answers() -> dict[str, Schema]:
    item_error = {"code": {"enum": _codes()}, "message": TEXT, "retryable": FLAG}
    packing = {
        name: _request(ImageRequest)["properties"][name] for name in ("encoding_format", "embed_dtype")
    }
    of_some = {"cached": FLAG, "tokens": WHOLE, "truncated": FLAG}
    embedding = {"request_id": TEXT_OR_NULL, "embedding": VECTOR, **_fields(Served), "normalized": FLAG}
    embedding |= {"timings": ref("Timings"), **packing, **of_some}
    result = {"anyOf": [ref("Embedding"), ref("FailedItem")]}
    results = {"request_id": TEXT_OR_NULL, "results": {"type": "array", "items": result, "minItems": 1}}
    results |= {"errors": WHOLE, **_fields(Served), "batch_timings": ref("Timings")}
    return {
        "Timings": _object(_fields(Timings)) | {"description": "milliseconds"},
        "Embedding": _object(embedding, optional=(*packing, *of_some)),
        "FailedItem": _object({"request_id": TEXT_OR_NULL, "error": _object(item_error)}),
        "Results": _object(results),
        "EmbeddingList": _embedding_list(),
        "Error": _object({"error": _object({**item_error, "request_id": TEXT_OR_NULL})}),
    }


def _embedding_list() -> Schema:
    entry = _object({"object": {"const": "embedding"}, "index": WHOLE, "embedding": VECTOR})
    return _object(
        {
            "object": {"const": "list"},
            "model": TEXT,
            "data": {"type": "array", "items": entry, "minItems": 1},
            "usage": _object({"prompt_tokens": WHOLE, "total_tokens": WHOLE}),
            "fingerprint": TEXT,
            "batch_timings": ref("Timings"),
        }
    )


def _states() -> dict[str, Schema]:
    names = ("gitCommit", "buildTime", "declaredImageDigest")
    match: dict[str, Schema] = {"identityMatches": {"type": ["boolean", "null"]}}
    match["identityMismatchReason"] = TEXT_OR_NULL
    source: Schema = {"enum": ["env", "none"]}
    identity = _object(
        {**dict.fromkeys(names, TEXT_OR_NULL), "imageDigestSource": source, **match}, optional=match
    )
    about = {"version": TEXT, "gpu": FLAG, "gpuName": TEXT_OR_NULL, "cuda": TEXT_OR_NULL}
    about |= {"models": {"type": "array", "items": TEXT}, "identity": identity}
    doing: dict[str, Schema] = {"status": {"enum": list(State)}}
    doing |= {"auth": {"type": "array", "items": {"enum": ["none", "bearer", "signature"]}}}
    measured = {"took_ms": NUMBER, "cosine": NUMBER, "reason": TEXT}
    health = {
        "request_id": TEXT_OR_NULL,
        "status": {"enum": ["ok", "failed"]},
        "check": _object({"passed": FLAG, **measured}, optional=measured),
        **_fields(Served),
        "precision": TEXT,
        "versions": {"type": "object", "additionalProperties": TEXT},
        "identity": identity,
        "uptime_s": NUMBER,
        "counters": {"type": "object", "additionalProperties": WHOLE},
    }
    model = _object({"id": TEXT, "object": {"const": "model"}, "created": WHOLE, "owned_by": TEXT})
    return {
        "About": _object({**doing, **about}, optional=about),
        "Health": _object(health, optional=("check",)),
        "ModelList": _object({"object": {"const": "list"}, "data": {"type": "array", "items": model}}),
    }


def _fields(of: type[Served | Timings]) -> dict[str, Schema]:
    return {
        name: {"type": each["type"]} for name, each in TypeAdapter(of).json_schema()["properties"].items()
    }


def _codes() -> list[str]:
    return sorted({code for codes in codes_by_status().values() for code in codes})
