"""Forms with pictures, and fields that come as texts: in a form, or in the query beside a bare picture.

Threat: what a form says of itself. Only its boundary is believed: a charset may name a codec that takes
hours.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from typing import TYPE_CHECKING, Any, Final

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from embedding.contract.requests import MAX_FIELDS, printable
from embedding.errors import BadRequest, InvalidInput


if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

MAX_FILES: Final = 4096  # as MAX_BATCH_SIZE at most
MAX_AUTH_CHARS: Final = 4096
INLINE_BYTES: Final = 1 << 20  # more is read in a thread: a megabyte of JSON takes a millisecond or two

_BOUNDARY: Final = re.compile(rb"[^\"\\\r\n]{1,70}")  # RFC 2046
_BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False}
_BOOLEAN_FIELDS: Final = frozenset({"normalize", "truncate"})
_PICTURE_FIELDS: Final = frozenset({"image", "file", "images", "files"})


async def read_form(headers: Headers, data: bytearray, *, batch: bool) -> dict[str, Any]:
    """Return the job's fields in the form *data*; its files are the one picture, or the items of a *batch*.

    Raises BadRequest if it is no form, InvalidInput for a field that is not what it must be.
    """
    reading = _read(headers, data)
    if len(data) <= INLINE_BYTES:
        fields, pictures = await reading
    else:
        fields, pictures = await asyncio.to_thread(asyncio.run, reading)  # coroutines that never wait
    beside, made = fields_of(fields), _made_of(pictures, batch=batch)
    for name in beside.keys() & made.keys():
        raise InvalidInput(f"{name} is made of the form's pictures; give one of them")
    return {**beside, **made}


async def _read(headers: Headers, data: bytearray) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the fields of the form *data*, and its pictures in base64."""
    form = await _parsed(headers, data)
    fields, pictures = [], []
    try:
        for name, value in form.multi_items():
            if not isinstance(value, UploadFile):
                fields.append((name, value))
            elif name.removesuffix("[]") in _PICTURE_FIELDS:
                pictures.append(base64.b64encode(await value.read()).decode("ascii"))
            else:
                raise InvalidInput(f"{printable(name)} is not a field for a picture; name it image")
    finally:
        await form.close()
    return fields, pictures


def _made_of(pictures: list[str], *, batch: bool) -> dict[str, Any]:
    if batch:
        return {"items": [{"image_base64": picture} for picture in pictures]}
    if len(pictures) > 1:
        raise InvalidInput(f"the form holds {len(pictures)} pictures; send several to /v1/embed/image-batch")
    return {"image_base64": pictures[0]} if pictures else {}


async def _parsed(headers: Headers, data: bytearray) -> FormData:
    async def stream() -> AsyncIterator[bytes]:
        yield bytes(data)

    parser = _InMemory(
        _boundary(headers),
        stream(),  # type: ignore[arg-type]
        max_files=MAX_FILES,
        max_fields=MAX_FIELDS,
        max_part_size=len(data),
    )
    try:
        return await parser.parse()
    except (MultiPartException, KeyError, ValueError) as fault:
        raise BadRequest(f"the form cannot be read: {fault}") from None


def _boundary(headers: Headers) -> Headers:
    """Return the header of a form without all that its sender may add, such as a charset that takes hours."""
    _, options = parse_options_header(headers["content-type"])
    boundary = options.get(b"boundary", b"")
    if not _BOUNDARY.fullmatch(boundary):
        raise BadRequest("the form cannot be read: its content type names no boundary")
    return Headers(raw=[(b"content-type", b'multipart/form-data; boundary="' + boundary + b'"')])


class _InMemory(MultiPartParser):
    """Starlette's parser, which would write files of more than a megabyte to the disk."""

    spool_max_size = 1 << 62


def fields_of(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return the job's fields that *pairs* of names and texts mean. Raises InvalidInput."""
    fields: dict[str, Any] = {}
    for name, text in pairs:
        if name in fields:
            raise InvalidInput(f"{printable(name)} is given twice")
        fields[name] = _value(name, text)
    return fields


def boolean(name: str, text: str) -> bool:
    """Return what *text*, the field *name* of a query or form, means. Raises InvalidInput."""
    if text.lower() not in _BOOLEANS:
        raise InvalidInput(f"{name} must be true or false")
    return _BOOLEANS[text.lower()]


def _value(name: str, text: str) -> Any:
    if name in _BOOLEAN_FIELDS:
        return boolean(name, text)
    return _object(name, text) if name == "auth" else text


def _object(name: str, text: str) -> dict[str, Any]:
    if len(text) > MAX_AUTH_CHARS:
        raise InvalidInput(f"{name} has {len(text)} characters; the limit is {MAX_AUTH_CHARS}")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidInput(f"{name} must be a JSON object")
    return found


async def base64_of(data: bytearray) -> str:
    """Return *data* in base64."""
    return (await threaded(base64.b64encode, data)).decode("ascii")


async def threaded(function: Any, data: bytearray) -> Any:
    """Return what *function* makes of *data*, of much in a thread."""
    return function(data) if len(data) <= INLINE_BYTES else await asyncio.to_thread(function, data)
