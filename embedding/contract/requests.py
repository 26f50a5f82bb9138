"""What a job may ask: pydantic models, one per action, behind one `parse`.

`parse` turns the `input` of a job into a `Request`, or raises an error whose message names the field and
the limit. It never trusts a type: every model is strict and refuses unknown fields, so a mistyped name is
reported instead of ignored. Whatever an item of a batch gets wrong is that item's error alone.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from embedding.contract.fields import AnyRequest, RequestId, Strict
from embedding.contract.operator import (
    DownloadModelsRequest,
    GpuInfoRequest,
    ListFilesRequest,
    OperatorRequest,
)
from embedding.errors import BatchTooLarge, InvalidInput, WorkerError


if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema, ErrorDetails

MAX_URL_CHARS = 2048
MAX_TEXT_CHARS = 100_000  # CLIP reads 77 tokens; more than this is a mistake, and costs tokenizer time
MAX_FIELDS = 64  # far more than there are; each unknown one costs time
MAX_ERRORS_TOLD = 3
MAX_FIELD_NAME_CHARS = 40

Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
Url = Annotated[str, Field(min_length=1, max_length=MAX_URL_CHARS)]


class _OneSource(BaseModel):
    """What has fields of which exactly one is given."""

    SOURCES: ClassVar[tuple[str, ...]]

    @model_validator(mode="after")
    def _exactly_one_source(self) -> Self:
        if sum(getattr(self, name) is not None for name in self.SOURCES) != 1:
            told = {"sources": ", ".join(self.SOURCES)}
            raise PydanticCustomError("one_source", "give exactly one of {sources}", told)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(super().__get_pydantic_json_schema__(core, handler))
        absent = {name: {"type": "null"} for name in cls.SOURCES}
        schema["oneOf"] = [
            {"required": [name], "properties": {**absent, name: {"not": {"type": "null"}}}}
            for name in cls.SOURCES
        ]
        return schema


class Item(Strict, _OneSource):
    """One thing to embed: exactly one of an image URL, an image in base64, or a text."""

    SOURCES = ("image_url", "image_base64", "text")
    image_url: Url | None = None
    image_base64: Annotated[str, Field(min_length=1)] | None = None
    text: Text | None = None
    request_id: RequestId | None = None
    normalize: bool = True
    truncate: bool = True
    auth: Any = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """An item that cannot be embedded: its error takes its place in the results."""

    request_id: str | None
    error: WorkerError


class ImageRequest(AnyRequest, _OneSource):
    """One image."""

    SOURCES = ("image_url", "image_base64")
    action: Literal["image"]
    image_url: Url | None = None
    image_base64: Annotated[str, Field(min_length=1)] | None = None

    @property
    def single(self) -> bool:
        """Whether the answer is one embedding rather than a list of results."""
        return True

    def items(self) -> list[Item | Rejected]:
        """Return the one image."""
        fields = ("image_url", "image_base64", "request_id", "normalize", "auth")
        return [Item(**{name: getattr(self, name) for name in fields})]


class TextRequest(AnyRequest, _OneSource):
    """One text, or a list of texts."""

    SOURCES = ("text", "texts")
    action: Literal["text"]
    text: Text | None = None
    texts: Annotated[list[Any], Field(min_length=1)] | None = None
    truncate: bool = True

    @property
    def single(self) -> bool:
        """Whether the answer is one embedding rather than a list of results."""
        return self.texts is None

    def items(self) -> list[Item | Rejected]:
        """Return the texts in order; one that is not a valid text stands as its error."""
        if self.texts is None:
            fields = ("text", "request_id", "normalize", "truncate", "auth")
            return [Item(**{name: getattr(self, name) for name in fields})]
        shared = {"normalize": self.normalize, "truncate": self.truncate}
        return [
            _item({"text": text}, shared) if isinstance(text, str) else Rejected(None, _NO_TEXT)
            for text in self.texts
        ]


class BatchRequest(AnyRequest):
    """Images and texts, mixed freely."""

    action: Literal["batch"]
    items_: Annotated[list[Any], Field(min_length=1, alias="items")]
    truncate: bool = True

    @property
    def single(self) -> bool:
        """Whether the answer is one embedding rather than a list of results."""
        return False

    def items(self) -> list[Item | Rejected]:
        """Return the items in order; one that is not valid stands as its error."""
        shared = {"normalize": self.normalize, "truncate": self.truncate}
        return [_item(item, shared) for item in self.items_]


class HealthRequest(AnyRequest):
    """How the worker is; *check* has it embed the golden inputs."""

    action: Literal["health"]
    check: bool = False


_NO_TEXT = InvalidInput("text: input should be a valid string")

EmbedRequest = ImageRequest | TextRequest | BatchRequest
Request = EmbedRequest | HealthRequest | OperatorRequest
ACTIONS = ("image", "text", "batch", "health", "gpu_info", "list_files", "download_models")
SOURCES = ("image_url", "image_base64", "text", "texts", "items")

_REQUEST: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="action")])
_ITEM = TypeAdapter(Item)
_REQUEST_ID: TypeAdapter[str] = TypeAdapter(RequestId, config=ConfigDict(strict=True))


def _fields_of(*models: type[BaseModel]) -> list[str]:
    return sorted({field.alias or name for model in models for name, field in model.model_fields.items()})


_KNOWN_FIELDS = _fields_of(Item, ImageRequest, TextRequest, BatchRequest, HealthRequest)
_OPERATORS_FIELDS = {
    "gpu_info": _fields_of(GpuInfoRequest),
    "list_files": _fields_of(ListFilesRequest),
    "download_models": _fields_of(DownloadModelsRequest),
}


def parse(job_input: Any, *, max_batch_size: int, action: str | None = None) -> Request:
    """Return what *job_input*, the `input` of a job, asks for. *action* is known to its sender and to us.

    Raises InvalidInput naming each faulty field, or BatchTooLarge if it holds more than *max_batch_size*.
    """
    if not isinstance(job_input, dict):
        raise InvalidInput('the input must be a JSON object, for example {"text": "a red circle"}')
    if len(job_input) > MAX_FIELDS:
        raise InvalidInput(f"input has {len(job_input)} fields; the limit is {MAX_FIELDS}")
    if action is not None and job_input.get("action", action) != action:
        raise InvalidInput(f"action: here it is {action}; leave it out")
    if "action" not in job_input:
        job_input = {"action": action or infer_action(job_input), **job_input}
    try:
        request = _REQUEST.validate_python(job_input)
    except ValidationError as fault:
        raise InvalidInput(explain(fault, tagged=True)) from None
    check_count(request, max_batch_size)
    return request


def infer_action(job_input: dict[Any, Any]) -> str:
    """Return the action that the fields of *job_input* imply where it names none."""
    if "image_url" in job_input or "image_base64" in job_input:
        return "image"
    if "items" in job_input:
        return "batch"
    if "text" in job_input or "texts" in job_input:
        return "text"
    if "test" in job_input:
        return "gpu_info"
    for name in job_input:
        if close := difflib.get_close_matches(printable(str(name)), SOURCES, n=1):
            raise InvalidInput(f"{printable(name)} is not a field of any action; did you mean {close[0]}?")
    raise InvalidInput(f"input names nothing to embed: give one of {', '.join(SOURCES)}")


def request_id_of(fields: Any) -> str | None:
    """Return the request id of *fields* if it is one that may be echoed, whatever else is wrong."""
    request_id = fields.get("request_id") if isinstance(fields, dict) else None
    try:
        return _REQUEST_ID.validate_python(request_id)
    except ValidationError:
        return None


def check_count(request: Request, max_batch_size: int) -> None:
    """Raise BatchTooLarge if *request* holds more than *max_batch_size* items or texts."""
    many = {"items": getattr(request, "items_", None), "texts": getattr(request, "texts", None)}
    for field, values in many.items():
        if values is not None and len(values) > max_batch_size:
            raise BatchTooLarge(f"{field} holds {len(values)} entries; the limit is {max_batch_size}")


def _item(fields: Any, shared: dict[str, bool]) -> Item | Rejected:
    if isinstance(fields, dict) and len(fields) > MAX_FIELDS:
        error = InvalidInput(f"an item has {len(fields)} fields; the limit is {MAX_FIELDS}")
        return Rejected(request_id_of(fields), error)
    try:
        return _ITEM.validate_python({**shared, **fields} if isinstance(fields, dict) else fields)
    except ValidationError as fault:
        return Rejected(request_id_of(fields), InvalidInput(explain(fault)))


def explain(fault: ValidationError, *, tagged: bool = False) -> str:
    """Say in one line which fields are wrong and how, quoting nothing of their values.

    *tagged* says that each location begins with the action that the union chose.
    """
    errors = fault.errors()
    told = [_explain_one(error, tagged=tagged) for error in errors[:MAX_ERRORS_TOLD]]
    if len(errors) > MAX_ERRORS_TOLD:
        told.append(f"and {len(errors) - MAX_ERRORS_TOLD} more faults")
    return "; ".join(told)


def _explain_one(error: ErrorDetails, *, tagged: bool) -> str:
    kind, location, message = error["type"], error["loc"][tagged:], error["msg"]
    if kind == "union_tag_invalid":
        return f"action must be one of {', '.join(ACTIONS)}"
    if kind == "model_type":
        return "an item must be a JSON object"
    plain = message[0].lower() + message[1:]
    if not location:
        return plain
    name = printable(str(location[0]))
    if kind != "extra_forbidden":
        return f"{name}: {plain}"
    known = _OPERATORS_FIELDS.get(str(error["loc"][0]), _KNOWN_FIELDS) if tagged else _KNOWN_FIELDS
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]}?" if close and close[0] != name else ""
    return f"{name} is not a field of this action{hint}"


def printable(name: str) -> str:
    """Return the name of a field that a stranger chose, short and in ASCII."""
    return name[:MAX_FIELD_NAME_CHARS].encode("ascii", "backslashreplace").decode()
