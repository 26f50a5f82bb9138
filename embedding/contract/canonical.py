r"""Decide the exact bytes a signature covers, for each version.

    v1   IMAGE_URL|TS
    v2   POST|PATH|IDENTIFIER|TS
    v3   clip-embed/v3\nKID\nIAT\nEXP\nNONCE\nSHA-256 hex of the input without `auth` in RFC 8785 form

The platform hands over parsed JSON, never the bytes the caller sent, so v3 signs a canonical form.
No message can be read under two rules: v1 and v2 take only http and https URLs, so v1 starts with `http`,
v2 with `POST|` and v3 with `clip-embed/v3`; the fields around a free one have fixed alphabets.

Canonical JSON of a stranger's input costs about 1 microsecond a value on the event loop, and ten megabytes
hold five million of them. A batch of 64 items holds about 500, so MAX_VALUES leaves room for large batches.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import rfc8785

from embedding.errors import InvalidInput


if TYPE_CHECKING:
    from collections.abc import Mapping


MAX_VALUES: Final = 20_000
MAX_DEPTH: Final = 32
IMAGE_PATH: Final = "/v1/embed/image"
IMAGE_BATCH_PATH: Final = "/v1/embed/image-batch"
TEXT_PATH: Final = "/v1/embed/text"


@dataclass(frozen=True, slots=True)
class Signable:
    """What one v1 or v2 signature is for: exactly one of an image's URL, its decoded bytes, and a text."""

    image_url: str | None = None
    image_bytes: bytes | None = field(default=None, repr=False)
    text: str | None = None
    in_batch: bool = False


def v1_message(image_url: str, *, ts: int) -> bytes:
    """Return what a v1 signature covers; raise InvalidInput when `image_url` is no http(s) URL."""
    return f"{_web_url(image_url)}|{ts}".encode()


def v2_message(item: Signable, *, ts: int) -> bytes:
    """Return what a v2 signature covers; raise InvalidInput when `item` has not one valid content.

    A text has one path whether alone or in a batch: there is no path for batches of texts.
    """
    if [item.image_url, item.image_bytes, item.text].count(None) != 2:  # noqa: PLR2004  (all but one)
        raise InvalidInput("exactly one of image_url, image_bytes and text can be signed")
    path = IMAGE_BATCH_PATH if item.in_batch else IMAGE_PATH
    if item.text is not None:
        path, identifier = TEXT_PATH, _sha256_hex(_utf8(item.text, name="text"))
    elif item.image_bytes is not None:
        identifier = _sha256_hex(item.image_bytes)
    else:
        identifier = _web_url(item.image_url)
    return f"POST|{path}|{identifier}|{ts}".encode()


def v3_message(job_input: Mapping[str, Any], *, kid: str, iat: int, exp: int, nonce: str) -> bytes:
    """Return what a v3 signature covers: every field of `job_input` but `auth`, and the other arguments.

    Raise InvalidInput when the input has no canonical form.
    """
    covered = {name: value for name, value in job_input.items() if name != "auth"}
    return f"clip-embed/v3\n{kid}\n{iat}\n{exp}\n{nonce}\n{_sha256_hex(canonical_json(covered))}".encode()


def canonical_json(value: Any) -> bytes:
    """Return `value` as RFC 8785 writes it, in UTF-8.

    Raise InvalidInput for what JSON cannot carry exactly (NaN, infinities, integers beyond 2**53 - 1,
    lone surrogates, keys that are no strings), for more than MAX_VALUES values, or deeper than MAX_DEPTH.
    """
    _require_small(value)
    try:
        return rfc8785.dumps(value)
    except ValueError as exc:  # CanonicalizationError and UnicodeEncodeError
        raise InvalidInput("the input holds a value that JSON cannot carry exactly") from exc


def _require_small(value: Any) -> None:
    level, count = [value], 0
    for _ in range(MAX_DEPTH + 1):
        containers = [each for each in level if isinstance(each, dict | list | tuple)]
        if not containers:
            return
        count += sum(map(len, containers))
        if count > MAX_VALUES:
            break
        level = [
            child for each in containers for child in (each.values() if isinstance(each, dict) else each)
        ]
    raise InvalidInput(f"the input has more than {MAX_VALUES} values or {MAX_DEPTH} levels")


def _web_url(value: Any) -> str:
    url = _utf8(value, name="image_url").decode()
    if not url.lower().startswith(("http://", "https://")):
        raise InvalidInput("image_url must begin with http:// or https://")
    return url


def _utf8(value: Any, *, name: str) -> bytes:
    if not isinstance(value, str):
        raise InvalidInput(f"{name} must be a string")
    try:
        return value.encode()
    except UnicodeEncodeError as exc:
        raise InvalidInput(f"{name} must be valid Unicode text") from exc


def _sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
