"""Vectors as they travel: a JSON list, or base64 of little-endian float32 or float16.

A list of 512 floats costs 11 KB of JSON, base64 float16 1.4 KB. `max_encoded_bytes` bounds an encoded
vector before it exists, so a batch whose answer cannot fit is refused before it is computed.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final

import numpy as np

from embedding.errors import InvalidInput


if TYPE_CHECKING:
    import numpy.typing as npt

    from embedding.contract.fields import EmbedDtype, EncodingFormat

MAX_FLOAT_CHARS: Final = 25  # "-1.2345678901234567e-300, " is the longest a float32 prints as float64
DTYPES: Final = {"float32": "<f4", "float16": "<f2"}


class JsonVector(list[float]):
    """A list of floats with a short repr: the RunPod SDK formats every output twice for its debug log."""

    def __repr__(self) -> str:
        return f"[{self[0]:.4f}, … {len(self)} floats]" if self else "[]"

    __str__ = __repr__


def normalize(vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return *vector* (D,) divided by its L2 norm, float32; the norm of the result is 1 ± 1e-6."""
    wide = vector.astype(np.float64)
    return (wide / np.linalg.norm(wide)).astype(np.float32)


def encode(
    vector: npt.NDArray[np.float32], encoding_format: EncodingFormat, embed_dtype: EmbedDtype
) -> JsonVector | str:
    """Return *vector* (D,) as plain JSON: a list of floats, or a base64 string of *embed_dtype*."""
    if encoding_format == "float":
        return JsonVector(vector.tolist())
    return base64.b64encode(vector.astype(DTYPES[embed_dtype]).tobytes()).decode("ascii")


def decode(embedding: list[float] | str, embed_dtype: EmbedDtype = "float32") -> npt.NDArray[np.float32]:
    """Return the vector (D,) float32 of an *embedding* as `encode` made it.

    Raises InvalidInput if it is neither a list of numbers nor base64 of whole numbers of *embed_dtype*.
    """
    try:
        if isinstance(embedding, str):
            raw = base64.b64decode(embedding, validate=True)
            return np.frombuffer(raw, dtype=DTYPES[embed_dtype]).astype(np.float32)
        return np.asarray(embedding, dtype=np.float32)
    except (binascii.Error, TypeError, ValueError) as fault:
        raise InvalidInput("embedding is neither a list of numbers nor base64") from fault


def max_encoded_bytes(dim: int, encoding_format: EncodingFormat, embed_dtype: EmbedDtype) -> int:
    """Return the most bytes of JSON that a vector of *dim* numbers can take."""
    if encoding_format == "float":
        return dim * MAX_FLOAT_CHARS + 2
    return 4 * -(-dim * np.dtype(DTYPES[embed_dtype]).itemsize // 3) + 2
