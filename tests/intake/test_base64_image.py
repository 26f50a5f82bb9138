"""How bytes travel in JSON: what is base64, what is nearly base64, and how much of it may come."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding.errors import ImageTooLarge, InvalidInput
from embedding.intake.base64_image import decode_base64


MAX_BYTES = 1000
DATA = bytes(range(256))
TEXT = base64.b64encode(DATA).decode()

BROKEN = {
    "empty": "",
    "only spaces": " \n",
    "only a data URI": "data:image/png;base64,",
    "one character": "A",
    "no padding": "QQ",
    "too little padding": "QQ=",
    "too much padding": "QUI==",
    "padding first": "=QUI",
    "padding inside": "QQ==QUI=",
    "text after padding": "QQ==QQ",
    "URL-safe alphabet": "-_-_",
    "other characters": "QUJ!",
    "not ASCII": "QUJD\u00e9",
    "full-width": "\uff21\uff21\uff21\uff21",
    "lone surrogate": "\ud800AAA",
    "null": "QUJ\0",
    "no-break space": "QU\u00a0JD",
    "data URI without base64": "data:image/png,QUJD",
    "data URI of text": "data:text/plain;base64,QUJD",
    "data URI without comma": "data:image/png;base64",
    "data URI of nothing": "data:,QUJD",
    "data URI inside": "QUJDdata:image/png;base64,QUJD",
}


class TestDecodeBase64:
    @pytest.mark.parametrize(
        "value",
        [
            TEXT,
            f"data:image/png;base64,{TEXT}",
            f"DATA:IMAGE/JPEG;BASE64,{TEXT}",
            f"data:image/svg+xml;charset=utf-8;base64,{TEXT}",
            f"data:image/x-icon;base64,\n{TEXT}",
            "\r\n".join(TEXT[start : start + 76] for start in range(0, len(TEXT), 76)),
            f" \t{TEXT}\f\v\n",
        ],
    )
    def test_reads_plain_and_data_uri(self, value):
        """Plain base64 and image data URIs give their bytes; ASCII whitespace does not matter."""
        assert decode_base64(value, max_bytes=MAX_BYTES) == DATA

    @pytest.mark.parametrize("value", BROKEN.values(), ids=BROKEN)
    def test_refuses_what_is_nearly_base64(self, value):
        """Whatever could be read in two ways is refused, and the field is named."""
        with pytest.raises(InvalidInput, match="image_base64"):
            decode_base64(value, max_bytes=MAX_BYTES)

    @pytest.mark.parametrize("size", [MAX_BYTES - 1, MAX_BYTES, MAX_BYTES + 1])
    def test_size_ends_at_the_limit(self, size):
        """As many bytes as allowed pass; one more does not, and is told before anything is decoded."""
        value = base64.b64encode(bytes(size)).decode()
        if size <= MAX_BYTES:
            assert len(decode_base64(value, max_bytes=MAX_BYTES)) == size
        else:
            with pytest.raises(ImageTooLarge, match="image_base64 holds 1001 bytes; the limit is 1000"):
                decode_base64(value, max_bytes=MAX_BYTES)

    def test_size_is_judged_before_the_alphabet(self):
        """A value that is too long is not looked at any further."""
        with pytest.raises(ImageTooLarge):
            decode_base64("!" * 4 * MAX_BYTES, max_bytes=MAX_BYTES)

    @given(st.binary(min_size=1, max_size=MAX_BYTES))
    def test_gives_back_what_was_encoded(self, data):
        """Every byte string survives."""
        assert decode_base64(base64.b64encode(data).decode(), max_bytes=MAX_BYTES) == data

    @given(st.text() | st.text("ABab+/=\n").map("data:image/png;base64,{}".format) | st.text("AQ=+/ -_"))
    def test_any_text_is_read_or_refused(self, value):
        """No text raises anything else, and what is read is not empty."""
        try:
            data = decode_base64(value, max_bytes=MAX_BYTES)
        except (InvalidInput, ImageTooLarge):
            return

        assert 0 < len(data) <= MAX_BYTES
