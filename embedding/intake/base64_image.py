"""`image_base64`: standard base64 (RFC 4648, section 4), plain or as a data URI, to bytes.

Line breaks and spaces are tolerated, since encoders wrap lines; nothing else is: no URL-safe alphabet, no
missing padding. So there is one way to read a value, and its size is known before it is decoded.
"""

from __future__ import annotations

import binascii
import re
from typing import Final

from embedding.errors import ImageTooLarge, InvalidInput


_DATA_URI: Final = re.compile(r"data:image/[a-z0-9.+-]{1,64}(?:;[a-z0-9=.+-]{1,64})*;base64,", re.IGNORECASE)
_WHITESPACE: Final = b" \t\n\r\f\v"


def decode_base64(value: str, *, max_bytes: int) -> bytes:
    """Return the bytes that *value* stands for, at least one.

    Raises InvalidInput unless it is base64; ImageTooLarge, before decoding, for more than *max_bytes*.
    """
    try:
        text = value[_prefix_length(value) :].encode("ascii").translate(None, _WHITESPACE)
    except UnicodeEncodeError as exc:
        raise InvalidInput("image_base64 has characters that are not base64") from exc
    if not text:
        raise InvalidInput("image_base64 is empty")
    size = len(text) // 4 * 3 - text[-2:].count(b"=")
    if size > max_bytes:
        raise ImageTooLarge(f"image_base64 holds {size} bytes; the limit is {max_bytes}")
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error as exc:
        raise InvalidInput(
            "image_base64 is not standard base64: it must use A-Z a-z 0-9 + / and be padded with ="
        ) from exc
    return data


def _prefix_length(value: str) -> int:
    if value[:5].lower() != "data:":
        return 0
    prefix = _DATA_URI.match(value)
    if prefix is None:
        raise InvalidInput("image_base64 is a data URI, but does not begin with data:image/...;base64,")
    return prefix.end()
