"""The body of a request in, a job's input out: JSON, a form with files, or the bare bytes of a picture.

`curl -d` and `curl --data-binary` both say `application/x-www-form-urlencoded`, whatever they send, so unless
a picture or a form is announced, the first byte decides: an object of JSON begins with a brace.
Beside a picture, the other fields stand in the query; in a form, among its fields. `auth` is JSON there.
Where a picture can be the whole body, the query counts for every body, and no field may stand in both.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import orjson

from embedding.contract.requests import printable
from embedding.errors import BadRequest, InvalidInput
from embedding.serve.http.forms import base64_of, fields_of, read_form, threaded


if TYPE_CHECKING:
    from starlette.datastructures import Headers
    from starlette.requests import Request

    from embedding.serve.http.gate import Body

BODY_TIMEOUT_S: Final = 60.0  # 30 MB at 4 Mbit/s
MAX_JSON_MARKS: Final = 1_000_000  # commas and opening brackets, each of which may become 64 bytes and more
NO_JSON: Final = "the body is not a JSON object"


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
    if action != "image" and request.query_params:
        raise InvalidInput("this route reads no query: put its fields into the body")
    if action != "image" or not isinstance(content, dict):
        return content
    beside = fields_of(request.query_params.multi_items())
    for name in beside.keys() & content.keys():
        raise InvalidInput(f"{printable(name)} is given twice, in the query and in the body")
    return {**beside, **content}


async def _content(headers: Headers, data: bytearray, *, action: str | None) -> Any:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await read_form(headers, data, batch=action == "batch")
    announced = kind.startswith("image/") or kind == "application/octet-stream"
    looks_like_json = bytes(data[:64]).lstrip()[:1] in (b"{", b"[", b"") or "json" in kind
    if action == "image" and (announced or not looks_like_json):
        return {"image_base64": await base64_of(data)}
    return await _json(data)


async def _json(data: bytearray) -> Any:
    return await threaded(_loads, data)


def _loads(data: bytearray) -> Any:
    marks = sum(data.count(mark) for mark in (b",", b"[", b"{"))
    if marks > MAX_JSON_MARKS:
        raise BadRequest(f"the body has {marks} commas and brackets; the limit is {MAX_JSON_MARKS}")
    try:
        return orjson.loads(data)
    except ValueError as fault:
        raise BadRequest(f"{NO_JSON}: {fault}") from None
