"""OpenAI's embeddings API, as RunPod's passthrough brings it to a queue worker.

`https://api.runpod.ai/v2/ENDPOINT/openai/v1/embeddings` reaches the handler as
`{"openai_route": "/v1/embeddings", "openai_input": {...}}`; the answer is a list of one element, which
the platform unwraps. A string that is a data URI or an http(s) URL is an image, any other a text, unless
Infinity's field `modality` says what all of them are.
https://platform.openai.com/docs/api-reference/embeddings/create
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from embedding.contract.fields import EncodingFormat
from embedding.contract.requests import MAX_FIELDS, BatchRequest, explain
from embedding.errors import BatchTooLarge, InvalidInput


if TYPE_CHECKING:
    from embedding.contract.responses import Served, Timings

Modality = Literal["text", "image"]

ROUTES = ("/v1/embeddings", "/v1/models")
_IMAGE = re.compile(r"data:image/|https?://\S+\Z", re.IGNORECASE)
_STRINGS = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}


class EmbeddingsInput(BaseModel):
    """The body of `POST /v1/embeddings`."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)

    input: Annotated[Any, WithJsonSchema(_STRINGS)] = Field(
        description="a text, a data URI or http(s) URL of an image, or a list of them; no token arrays"
    )
    model: str | None = Field(None, description="the model that is served, as /v1/models names it")
    encoding_format: EncodingFormat = "float"
    dimensions: int | None = Field(None, description="the model's own: vectors are never cut")
    user: str | None = Field(None, description="is not looked at")
    modality: Modality | None = Field(
        None, description="Infinity's: what every entry is; without it, the entry's form tells"
    )


def is_passthrough(job_input: Any) -> bool:
    """Return whether *job_input* came through RunPod's OpenAI route."""
    return isinstance(job_input, dict) and "openai_route" in job_input


def with_auth_outside(job_input: dict[str, Any]) -> dict[str, Any]:
    """Return *job_input* with `auth` beside `openai_input`, where the platform let a caller put it inside.

    A v3 signature then covers `openai_route` and the whole body but `auth`.
    """
    body = job_input.get("openai_input")
    if not isinstance(body, dict) or "auth" not in body:
        return job_input
    rest = {name: value for name, value in body.items() if name != "auth"}
    return {**job_input, "openai_input": rest, "auth": body["auth"]}


def parse_route(job_input: dict[str, Any]) -> Literal["/v1/embeddings", "/v1/models"]:
    """Return the route that *job_input* names. Raises InvalidInput for any other."""
    for route in ROUTES:
        if job_input["openai_route"] == route:
            return route  # type: ignore[return-value]
    raise InvalidInput(f"openai_route must be one of {', '.join(ROUTES)}")


def parse_embeddings(body: Any, *, dim: int, max_batch_size: int) -> BatchRequest:
    """Return the batch that *body*, the JSON of `POST /v1/embeddings`, asks for.

    Raises InvalidInput for token arrays, for `dimensions` other than *dim*, and for an entry that cannot be
    the image that `modality` calls it; BatchTooLarge for more than *max_batch_size* entries.
    """
    if not isinstance(body, dict):
        raise InvalidInput(
            'a request for embeddings must be a JSON object, for example {"input": "a red circle"}'
        )
    if len(body) > MAX_FIELDS:
        raise InvalidInput(f"a request for embeddings has {len(body)} fields; the limit is {MAX_FIELDS}")
    try:
        asked = EmbeddingsInput.model_validate(body)
    except ValidationError as fault:
        raise InvalidInput(explain(fault)) from None
    if asked.dimensions not in (None, dim):
        raise InvalidInput(f"dimensions: this model's vectors have {dim} numbers and cannot be cut")
    entries = [asked.input] if isinstance(asked.input, str) else asked.input
    if isinstance(entries, list) and len(entries) > max_batch_size:
        raise BatchTooLarge(f"input holds {len(entries)} entries; the limit is {max_batch_size}")
    if not (isinstance(entries, list) and entries and all(isinstance(entry, str) for entry in entries)):
        raise InvalidInput("input must be a string or a list of strings; token arrays are not accepted")
    return BatchRequest.model_validate(
        {
            "action": "batch",
            "items": [_item(index, entry, asked.modality) for index, entry in enumerate(entries)],
            "model": asked.model,
            "encoding_format": asked.encoding_format,
        }
    )


def embeddings_response(results: list[dict[str, Any]], timings: Timings, *, served: Served) -> dict[str, Any]:
    """Return the body that answers `POST /v1/embeddings`. *results* are embeddings, in order.

    `usage` counts tokens of texts; an image costs none. `fingerprint` and `batch_timings` are ours: OpenAI's
    clients pass over fields that they do not know.
    """
    tokens = sum(result.get("tokens", 0) for result in results)
    return {
        "object": "list",
        "model": served.model,
        "data": [
            {"object": "embedding", "index": index, "embedding": result["embedding"]}
            for index, result in enumerate(results)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "fingerprint": served.fingerprint,
        "batch_timings": timings.as_json(),
    }


def models_response(*, model: str) -> dict[str, Any]:
    """Return the body that answers `GET /v1/models`."""
    served = {"id": model, "object": "model", "created": 0, "owned_by": "open_clip"}
    return {"object": "list", "data": [served]}


def _item(index: int, entry: str, modality: Modality | None) -> dict[str, str]:
    looks_like_image = _IMAGE.match(entry) is not None
    if modality == "image" and not looks_like_image:
        raise InvalidInput(
            f"input[{index}]: an image must be a data URI (data:image/...;base64,) or an http(s) URL"
        )
    if modality == "text" or not looks_like_image:
        return {"text": entry}
    return {"image_base64": entry} if entry[:5].lower() == "data:" else {"image_url": entry}
