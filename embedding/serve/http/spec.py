"""What `/openapi.json` and `/docs` say of each route: bodies, answers, errors, who may ask, and examples.

The contract judges bodies, so nothing here refuses anything; tests send every example and hold each answer
against its schema, and try what the schemas allow and what they forbid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from embedding.errors import AuthFailed
from embedding.serve.http.schemas import BINARY, NUMBER, SWITCH, TEXT, Schema, codes_by_status, options, ref


if TYPE_CHECKING:
    from embedding.serve.access import Access

PICTURE: Final = (  # a red circle on white, 64 x 64, of two colours
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABAAQMAAACQp+OdAAAABlBMVEX/////AADrWueTAAAAg0lEQVR42r3QsQ2DQBQE0ccHCTJTAu4E"
    "d+QSrwSXQAmEJwtxDpCtC4gcsNFoVtpguTa3jMCzP0RTSgJ9KSvBwEAw0hFMBMFMQ0tCk0IDs/jOx4FTbToYa/ODAYbT6j/IkE+rDdba"
    "7LDUpkDSYuYhSBSChZ1gZSPIZII3L1qY79XPF+QDrEEctGfYTQAAAAAASUVORK5CYII="
)
DESCRIPTION: Final = """
Vectors of images and texts, by one model: near vectors mean alike. The same bodies as the RunPod queue's
`input`, and OpenAI's embeddings API.

**Who may ask.** Where the operator set `WORKER_TOKEN`, a bearer token does. Where `EMBEDDING_HMAC_SECRET` is
set, a signature in the body's field `auth` does too, without a token: `{"v": 3, "kid", "iat", "exp", "nonce",
"sig"}` signs the whole body once; `{"ts", "sig"}` signs one image or text, in a batch each item its own.
`python -m embedding sign` makes the first; for `/v1/embeddings` it signs `{"openai_route": "/v1/embeddings",
"openai_input": BODY}`.

**Errors.** `{"error": {"code", "message", "retryable", "request_id"}}`; only what is no HTTP, or
one of many thousand connections, is refused in plain text. In a batch or a list of texts
a bad entry fails alone: its error stands in its place, and the status is 200.

**Times.** `x-queue-time`, `x-inference-time` and `x-total-time` say in milliseconds where the time went.
"""
_MEANINGS: Final = {
    400: "the body cannot be read",
    401: "no valid token or signature",
    413: "too much at once",
    422: "what is asked for cannot be done; the message names the field and the limit",
    429: "full, or out of time: try again",
    500: "the worker failed",
    503: "loading the model, or stopping: try again, or ask another",
}
_TIMING_HEADERS: Final = {
    name: {"description": f"{what}, ms", "schema": NUMBER, "required": name == "x-total-time"}
    for name, what in {
        "x-queue-time": "waiting for the device",
        "x-inference-time": "on the device",
        "x-total-time": "from the request's head to the answer",
    }.items()
}
_RETRY: Final[dict[str, Any]] = {"Retry-After": {"description": "seconds", "schema": TEXT, "required": True}}
_REFUSAL_HEADERS: Final = {
    401: {"WWW-Authenticate": {"schema": TEXT, "required": True}},
    429: _RETRY,
    503: _RETRY,
}
EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "image": {
        "a picture": {"image_base64": PICTURE},
        "a data URI, packed small": {
            "image_base64": f"data:image/png;base64,{PICTURE}",
            "request_id": "my-picture-1",
            "encoding_format": "base64",
            "embed_dtype": "float16",
        },
    },
    "batch": {
        "a picture and a text": {
            "items": [
                {"image_base64": PICTURE, "request_id": "picture"},
                {"text": "a red circle", "request_id": "text"},
            ]
        },
        "one of them is bad": {"items": [{"text": "a red circle"}, {"text": 5}]},
    },
    "text": {
        "a text": {"text": "a red circle"},
        "several": {"texts": ["a red circle", "a blue square"], "encoding_format": "base64"},
    },
    "embeddings": {
        "a text": {"input": "a red circle"},
        "several": {"input": ["a red circle", "a blue square"], "encoding_format": "base64", "user": "me"},
        "a picture and a text": {"input": [f"data:image/png;base64,{PICTURE}", "a red circle"]},
        "as Infinity has it": {"input": [f"data:image/png;base64,{PICTURE}"], "modality": "image"},
    },
}
_SUMMARIES: Final = {"image": "One image", "batch": "Images and texts, mixed", "text": "A text, or several"}


@dataclass(frozen=True, slots=True)
class Spec:
    """What decorates each route of a service that *access* may ask."""

    access: Access

    def embed(self, action: str) -> dict[str, Any]:
        """Return what describes the route of *action*: image, batch or text."""
        answers = {
            "image": ref("Embedding"),
            "batch": ref("Results"),
            "text": {"anyOf": [ref("Embedding"), ref("Results")]},
        }
        contents = {
            "image": {"multipart/form-data": _form("ImageForm"), "image/*": {"schema": BINARY}},
            "batch": {"multipart/form-data": _form("ImageBatchForm")},
        }
        request = {"text": "TextRequest", "batch": "BatchRequest", "image": "ImageRequest"}[action]
        extra = {"parameters": _query()} if action == "image" else {}
        json = _json(request, EXAMPLES[action])
        return {
            "summary": _SUMMARIES[action],
            "operation_id": f"embed_{action}",
            "tags": ["embed"],
            "responses": {200: _good(answers[action], headers=_TIMING_HEADERS), **self._refusals()},
            "openapi_extra": self._extra({**json, **contents.get(action, {})}) | extra,
        }

    def embeddings(self) -> dict[str, Any]:
        """Return what describes `POST /v1/embeddings`."""
        return {
            "summary": "OpenAI's embeddings API",
            "description": "A string that is a data URI or an http(s) URL is an image, any other a text, "
            "unless `modality` says what all are. One bad entry fails the request.",
            "operation_id": "create_embeddings",
            "tags": ["OpenAI"],
            "responses": {200: _good(ref("EmbeddingList"), headers=_TIMING_HEADERS), **self._refusals()},
            "openapi_extra": self._extra(_json("EmbeddingsRequest", EXAMPLES["embeddings"])),
        }

    def models(self) -> dict[str, Any]:
        """Return what describes `GET /v1/models`."""
        return {
            "summary": "The model that is served",
            "operation_id": "list_models",
            "tags": ["OpenAI"],
            "responses": {200: _good(ref("ModelList")), 503: _refusal(503)},
        }

    def ping(self) -> dict[str, Any]:
        """Return what describes `GET /ping`."""
        told = {200: "ready", 204: "loading", 503: "stopping, or the device has failed"}
        return {
            "summary": "For load balancers: the status is the answer",
            "operation_id": "ping",
            "response_class": Response,
            "tags": ["state"],
            "responses": {status: {"description": what} for status, what in told.items()},
        }

    def about(self) -> dict[str, Any]:
        """Return what describes `GET /v1/ping`."""
        return {
            "summary": "What this worker is, also while it loads",
            "operation_id": "about",
            "tags": ["state"],
            "responses": {200: _good(ref("About"))},
        }

    def metrics(self) -> dict[str, Any]:
        """Return what describes `GET /metrics`."""
        content = {"text/plain": {"schema": TEXT}, "application/openmetrics-text": {"schema": TEXT}}
        return {
            "summary": "Counters and histograms, for Prometheus",
            "operation_id": "metrics",
            "tags": ["state"],
            "response_class": Response,
            "responses": {200: {"description": "done", "content": content}},
        }

    def health(self) -> dict[str, Any]:
        """Return what describes `GET /health`."""
        told = "embed known inputs"
        check = {"name": "check", "in": "query", "schema": SWITCH | {"default": False}, "description": told}
        failed = _refusal(503)
        del failed["headers"]  # a device that has failed does not come back
        failed["content"]["application/json"]["schema"] = {"anyOf": [ref("Health"), ref("Error")]}
        return {
            "summary": "How this worker is",
            "operation_id": "health",
            "tags": ["state"],
            "responses": {200: _good(ref("Health")), 422: _refusal(422), 503: failed},
            "openapi_extra": {"parameters": [check]},
        }

    def security_schemes(self) -> dict[str, Any]:
        """Return the ways to prove who asks that OpenAPI has words for."""
        told = "one of WORKER_TOKEN"
        return (
            {"bearer": {"type": "http", "scheme": "bearer", "description": told}}
            if self.access.tokens
            else {}
        )

    def _extra(self, content: dict[str, Any]) -> dict[str, Any]:
        body = {"requestBody": {"required": True, "content": content}}
        if self.access.tokens is None:
            return body
        return {**body, "security": [{"bearer": []}, *([{}] if self.access.verifier else [])]}

    def _refusals(self) -> dict[int, Any]:
        left_out = AuthFailed.http_status if self.access.is_open else None
        return {status: _refusal(status) for status in _MEANINGS if status != left_out}


def _json(name: str, examples: dict[str, Any]) -> dict[str, Any]:
    shown = {title: {"summary": title, "value": value} for title, value in examples.items()}
    return {"application/json": {"schema": ref(name), "examples": shown}}


def _form(name: str) -> dict[str, Any]:
    return {"schema": ref(name), "encoding": {"auth": {"contentType": "application/json"}}}


def _query() -> list[dict[str, Any]]:
    """Return the query's fields: they count for every body, and none may stand in both."""
    told = options()
    auth = {"name": "auth", "in": "query", "content": {"application/json": {"schema": told.pop("auth")}}}
    return [*({"name": name, "in": "query", "schema": schema} for name, schema in told.items()), auth]


def _good(schema: Schema, *, headers: dict[str, Any] | None = None) -> dict[str, Any]:
    told = {"description": "done", "content": {"application/json": {"schema": schema}}}
    return {**told, **({"headers": headers} if headers else {})}


def _refusal(status: int) -> dict[str, Any]:
    codes = ", ".join(codes_by_status()[status])
    headers = _REFUSAL_HEADERS.get(status)
    return {**_good(ref("Error"), headers=headers), "description": f"{_MEANINGS[status]} ({codes})"}
