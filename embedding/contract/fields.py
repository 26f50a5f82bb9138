"""The fields that every action understands, and what all requests have in common.

Every model is strict and refuses unknown fields, so a mistyped name is reported instead of ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


MAX_REQUEST_ID_CHARS = 128

RequestId = Annotated[str, Field(max_length=MAX_REQUEST_ID_CHARS)]
EncodingFormat = Literal["float", "base64"]
EmbedDtype = Literal["float32", "float16"]

_FLOAT16_NEEDS_BASE64 = {
    "anyOf": [
        {"properties": {"embed_dtype": {"const": "float32"}}},
        {"properties": {"encoding_format": {"const": "base64"}}, "required": ["encoding_format"]},
    ]
}


class Strict(BaseModel):
    """A model that takes nothing for something else, and quotes no values."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)


class AnyRequest(Strict):
    """The fields that every action understands."""

    model_config = ConfigDict(json_schema_extra=_FLOAT16_NEEDS_BASE64)  # type: ignore[typeddict-item]

    request_id: RequestId | None = None
    model: str | None = None
    normalize: bool = True
    encoding_format: EncodingFormat = "float"
    embed_dtype: EmbedDtype = "float32"
    auth: Any = None

    @model_validator(mode="after")
    def _float16_needs_base64(self) -> AnyRequest:
        if self.embed_dtype == "float16" and self.encoding_format != "base64":
            raise PydanticCustomError("dtype", "embed_dtype 'float16' needs encoding_format 'base64'")
        return self
