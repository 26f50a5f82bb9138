"""What a job is answered: embeddings, results and errors as plain JSON.

Whole-job failures carry a string under `error`, because the RunPod SDK pops that key and the platform
shows it; per-item errors live inside `results[i]`, where the SDK leaves them alone.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from embedding.contract.encoding import encode, max_encoded_bytes, normalize
from embedding.errors import ResponseTooLarge, WorkerError


if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from embedding.contract.requests import EmbedRequest, Rejected

MAX_BYTES_BESIDE_VECTOR: Final = 4000  # timings, and four names or ids of 128 escaped characters
ENVELOPE_BYTES: Final = 2000
USUAL_FLOAT_CHARS: Final = 16  # float32 values printed as float64 take 18 to 22 characters, rarely fewer


@dataclass(frozen=True, slots=True)
class Served:
    """What every response says of the model that made it."""

    model: str
    model_name: str
    pretrained: str
    device: str
    fingerprint: str
    dim: int


@dataclass(frozen=True, slots=True)
class Timings:
    """Where an item's time went, in milliseconds."""

    download_ms: float = 0.0
    decode_ms: float = 0.0
    queue_ms: float = 0.0
    inference_ms: float = 0.0
    total_ms: float = 0.0

    def as_json(self) -> dict[str, float]:
        """Return the timings rounded to a microsecond."""
        return {name: round(value, 3) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Embedded:
    """One item's outcome: its features (D,) float32, not normalised, and what the caller is told of it."""

    request_id: str | None
    normalize: bool
    features: npt.NDArray[np.float32]
    timings: Timings
    tokens: int | None = None
    truncated: bool | None = None
    cached: bool | None = None  # whether an equal item's vector was used; None where nothing is kept


def embedding_json(item: Embedded, request: EmbedRequest, served: Served) -> dict[str, Any]:
    """Return one embedding as plain JSON."""
    vector = normalize(item.features) if item.normalize else item.features
    answer: dict[str, Any] = {
        "request_id": item.request_id,
        "embedding": encode(vector, request.encoding_format, request.embed_dtype),
        **asdict(served),
        "normalized": item.normalize,
        "timings": item.timings.as_json(),
    }
    if request.encoding_format == "base64":
        answer |= {"encoding_format": "base64", "embed_dtype": request.embed_dtype}
    if item.tokens is not None:
        answer |= {"tokens": item.tokens, "truncated": item.truncated}
    if item.cached is not None:
        answer["cached"] = item.cached
    return answer


def results_json(
    items: Sequence[Embedded | Rejected], request: EmbedRequest, served: Served, timings: Timings
) -> dict[str, Any]:
    """Return the answer to a batch: *items* in their order, each an embedding or an error."""
    results = [
        embedding_json(item, request, served)
        if isinstance(item, Embedded)
        else {"request_id": item.request_id, "error": item.error.as_item()}
        for item in items
    ]
    return {
        "request_id": request.request_id,
        "results": results,
        "errors": sum("error" in result for result in results),
        **asdict(served),
        "batch_timings": timings.as_json(),
    }


def failure_json(error: WorkerError, request_id: str | None) -> dict[str, Any]:
    """Return the answer to a job that failed as a whole; RunPod marks it FAILED."""
    return {
        "error": f"{error.code}: {error.message}",
        "error_code": error.code,
        "retryable": error.retryable,
        "request_id": request_id,
    }


def check_size_before(request: EmbedRequest, *, count: int, dim: int, max_bytes: int) -> None:
    """Refuse a request for *count* vectors of *dim* numbers whose answer could not be carried.

    Raises ResponseTooLarge if the vectors alone would exceed *max_bytes*.
    """
    if request.encoding_format == "base64":
        each = max_encoded_bytes(dim, request.encoding_format, request.embed_dtype)
    else:
        each = dim * USUAL_FLOAT_CHARS
    if count * each > max_bytes:
        raise ResponseTooLarge(_too_large(f"{count} vectors take", count * each, max_bytes))


def check_listing_size(answer: Any, *, max_bytes: int) -> None:
    """Raise ResponseTooLarge if the *answer* to `list_files` takes more than *max_bytes* of JSON."""
    size = len(json.dumps(answer, ensure_ascii=False).encode())
    if size > max_bytes:
        told = f"the answer takes {size} bytes of JSON; the limit is {max_bytes}: ask for a smaller limit"
        raise ResponseTooLarge(told)


def check_size_after(answer: Any, request: EmbedRequest, *, count: int, dim: int, max_bytes: int) -> None:
    """Refuse an *answer* of more than *max_bytes* of JSON; it is measured only where it might not fit.

    Raises ResponseTooLarge.
    """
    vector_bytes = max_encoded_bytes(dim, request.encoding_format, request.embed_dtype)
    if count * (vector_bytes + MAX_BYTES_BESIDE_VECTOR) + ENVELOPE_BYTES <= max_bytes:
        return
    size = len(json.dumps(answer, ensure_ascii=False).encode())
    if size > max_bytes:
        raise ResponseTooLarge(_too_large("the answer takes", size, max_bytes))


def _too_large(what: str, size: int, max_bytes: int) -> str:
    return (
        f"{what} {size} bytes of JSON; the limit is {max_bytes}: send fewer items, "
        "or ask for encoding_format 'base64' with embed_dtype 'float16'"
    )
