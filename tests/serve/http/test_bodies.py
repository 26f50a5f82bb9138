"""What a body may be, and what reading one may cost."""

from __future__ import annotations

import asyncio
import time

import pytest
from starlette.requests import Request

from embedding.errors import BadRequest, InvalidInput
from embedding.serve.http import bodies


FORM = "multipart/form-data; boundary=b"


def read(data, *, kind="application/json", action="text", query=""):
    """Return the job's input in *data*, sent as *kind*."""
    headers = [(b"content-type", kind.encode())]
    scope = {"type": "http", "headers": headers, "query_string": query.encode()}
    return asyncio.run(bodies.job_input(Request(scope), bytearray(data), action=action))


def form(*parts):
    """Return a form of *parts*: names, with what stands after them in the head, and contents."""
    each = [
        f'--b\r\ncontent-disposition: form-data; name="{name}\r\n\r\n'.encode() + body for name, body in parts
    ]
    return b"\r\n".join([*each, b"--b--\r\n"])


def picture(name="image", content=b"x"):
    """Return the part of a picture."""
    return f'{name}"; filename="p.png"', content


@pytest.mark.parametrize(("marks", "allowed"), [(999_999, True), (1_000_000, True), (1_000_001, False)])
def test_marks_of_json(marks, allowed):
    """JSON may have so many commas and opening brackets, for each may become an object."""
    data = b'{"texts":[' + b"0," * (marks - 2) + b"0]}"
    if allowed:
        assert len(read(data)["texts"]) == marks - 1
    else:
        with pytest.raises(
            BadRequest, match="the body has 1000001 commas and brackets; the limit is 1000000"
        ):
            read(data)


@pytest.mark.parametrize(("count", "allowed"), [(4095, True), (4096, True), (4097, False)])
def test_files_of_a_form(count, allowed):
    """A form holds as many pictures as the largest batch."""
    data = form(*[picture("images")] * count)
    if allowed:
        assert len(read(data, kind=FORM, action="batch")["items"]) == count
    else:
        with pytest.raises(BadRequest, match="the form cannot be read"):
            read(data, kind=FORM, action="batch")


@pytest.mark.parametrize(("size", "allowed"), [(4095, True), (4096, True), (4097, False)])
def test_auth_of_a_form(size, allowed):
    """`auth` is JSON of so many characters."""
    auth = b'{"sig": "' + b"0" * (size - 11) + b'"}'
    data = form(picture(), ('auth"', auth))
    assert len(auth) == size
    if allowed:
        assert len(read(data, kind=FORM, action="image")["auth"]["sig"]) == size - 11
    else:
        with pytest.raises(InvalidInput, match="auth has 4097 characters; the limit is 4096"):
            read(data, kind=FORM, action="image")


@pytest.mark.parametrize("charset", ["punycode", "idna", "utf-7", "no such thing", "rot13"])
def test_charset_of_a_form(charset):
    """A form is UTF-8, whatever it says: some codecs take an hour for a megabyte."""
    started_s = time.process_time()
    answer = read(form(('text"', "ä".encode() + b"A" * 900_000)), kind=f"{FORM}; charset={charset}")

    assert answer["text"].startswith("äAA")
    assert time.process_time() - started_s < 1


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "multipart/form-data; boundary=", 'multipart/form-data; boundary="a\\"b"']
)
def test_form_without_a_boundary(kind):
    """A form that names no boundary is told so."""
    with pytest.raises(BadRequest, match="names no boundary"):
        read(form(picture()), kind=kind, action="image")


@pytest.mark.parametrize(
    ("action", "parts", "told"),
    [
        ("image", [picture(), ('image_base64"', b"eA==")], "image_base64 is made of the form's pictures"),
        ("batch", [picture("images"), ('items"', b"[]")], "items is made of the form's pictures"),
        ("text", [('text"', b"a"), ('text"', b"b")], "text is given twice"),
    ],
)
def test_fields_given_twice(action, parts, told):
    """What a form says twice is refused: nothing is passed over."""
    with pytest.raises(InvalidInput, match=told):
        read(form(*parts), kind=FORM, action=action)


def test_large_form():
    """A form of megabytes, read in a thread, is read like any other."""
    data = form(picture(content=bytes(5_000_000)), ('request_id"', b"a"))
    answer = read(data, kind=FORM, action="image")

    assert (len(answer["image_base64"]), answer["request_id"]) == (6_666_668, "a")


@pytest.mark.parametrize("action", ["text", "batch", None])
def test_query_that_is_not_read(action):
    """Where a query means nothing, one is refused."""
    with pytest.raises(InvalidInput, match="this route reads no query"):
        read(b"{}", action=action, query="normalize=false")
