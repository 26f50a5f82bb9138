"""The body of a request in, a job's input out: JSON, a form with files, or the bare bytes of a picture.

`curl -d` and `curl --data-binary` both say `application/x-www-form-urlencoded`, whatever they send, so unless
a picture or a form is announced, the first byte decides: an object of JSON begins with a brace.
Beside a picture, the other fields stand in the query; in a form, among its fields. `auth` is JSON there.
Where a picture can be the whole body, the query counts for every body, and no field may stand in both.
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any, Final

import orjson
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from embedding.contract.requests import MAX_FIELDS, printable
from embedding.errors import BadRequest, InvalidInput


if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from starlette.requests import Request

    from embedding.serve.http.gate import Body

BODY_TIMEOUT_S: Final = 60.0  # 30 MB at 4 Mbit/s
INLINE_BYTES: Final = 1 << 20  # more is parsed in a thread: a megabyte of JSON takes a millisecond or two
NO_JSON: Final = "the body is not a JSON object"

_BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False}
_BOOLEAN_FIELDS: Final = frozenset({"normalize", "truncate"})
_PICTURE_FIELDS: Final = frozenset({"image", "file", "images", "files"})


async def receive(request: Request, body: Body, *, timeout_s: float = BODY_TIMEOUT_S) -> None:
    """Fill *body* from *request*.

    Raises RequestTooLarge, Overloaded, BadRequest if it does not come within *timeout_s*, and starlette's
    ClientDisconnect.
    """
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                body.add(chunk)
    except TimeoutError:
        raise BadRequest(f"the body did not arrive within {timeout_s:g} s") from None


async def job_input(request: Request, data: bytearray, *, action: str | None) -> Any:
    """Return what *data*, the whole body of *request*, asks for; *action* says what a picture is for.

    Raises BadRequest for what cannot be read, and InvalidInput for a field that is not what it must be.
    """
    content = await _content(request.headers, data, action=action)
    if action != "image" or not isinstance(content, dict):
        return content
    beside = _fields(request.query_params.multi_items())
    for name in beside.keys() & content.keys():
        raise InvalidInput(f"{printable(name)} is given twice, in the query and in the body")
    return {**beside, **content}


async def _content(headers: Headers, data: bytearray, *, action: str | None) -> Any:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _form(headers, data, batch=action == "batch")
    announced = kind.startswith("image/") or kind == "application/octet-stream"
    looks_like_json = bytes(data[:64]).lstrip()[:1] in (b"{", b"[", b"") or "json" in kind
    if action == "image" and (announced or not looks_like_json):
        return {"image_base64": await _base64(data)}
    return await _json(data)


async def _json(data: bytearray) -> Any:
    try:
        return await _threaded(orjson.loads, data)
    except ValueError as fault:
        raise BadRequest(f"{NO_JSON}: {fault}") from None


async def _form(headers: Headers, data: bytearray, *, batch: bool) -> dict[str, Any]:
    """Return the fields of a form; its files are the one picture, or the items of a batch."""

    async def stream() -> AsyncIterator[bytes]:
        yield bytes(data)

    try:
        parser = _InMemory(headers, stream(), max_files=4096, max_fields=MAX_FIELDS, max_part_size=len(data))  # type: ignore[arg-type]
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as fault:
        raise BadRequest(f"the form cannot be read: {fault}") from None
    fields, pictures = [], []
    for name, value in form.multi_items():
        if not isinstance(value, UploadFile):
            fields.append((name, value))
        elif name.removesuffix("[]") in _PICTURE_FIELDS:
            pictures.append(await _base64(await value.read()))
        else:
            raise InvalidInput(f"{printable(name)} is not a field for a picture; name it image")
    if batch:
        return {**_fields(fields), "items": [{"image_base64": picture} for picture in pictures]}
    if len(pictures) > 1:
        raise InvalidInput(f"the form holds {len(pictures)} pictures; send several to /v1/embed/image-batch")
    return {**_fields(fields), **({"image_base64": pictures[0]} if pictures else {})}


class _InMemory(MultiPartParser):
    """Starlette's parser, which would write files of more than a megabyte to the disk."""

    spool_max_size = 1 << 62


def _fields(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
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
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidInput(f"{name} must be a JSON object")
    return found


async def _base64(data: bytes | bytearray) -> str:
    return (await _threaded(base64.b64encode, data)).decode("ascii")


async def _threaded(function: Any, data: bytes | bytearray) -> Any:
    return function(data) if len(data) <= INLINE_BYTES else await asyncio.to_thread(function, data)
