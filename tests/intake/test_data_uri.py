"""What may stand before the base64 of a data URI, to the character, and how its bytes are counted."""

from __future__ import annotations

import string

import pytest

from embedding.errors import ImageTooLarge, InvalidInput
from embedding.intake.base64_image import decode_base64


TYPE = set(string.ascii_letters + string.digits + ".+-")


def is_read(prefix: str) -> bool:
    """Whether a data URI with this prefix is read as an image."""
    try:
        return decode_base64(f"{prefix}QUJD", max_bytes=3) == b"ABC"
    except InvalidInput:
        return False


@pytest.mark.parametrize(
    ("prefix", "taken"),
    [
        ("data:image/a{}b;base64,", TYPE | {";"}),
        ("data:image/png;a{}b;base64,", TYPE | {"=", ";"}),
        ("data:image/png;charset=utf-8;a{}b;base64,", TYPE | {"=", ";"}),
    ],
)
def test_characters(prefix, taken):
    """A type is made of letters, digits and . + -, a parameter of these and =."""
    assert {chr(code) for code in range(256) if is_read(prefix.format(chr(code)))} == taken


@pytest.mark.parametrize(
    ("length", "read"), [(0, False), (1, True), (2, True), (63, True), (64, True), (65, False)]
)
@pytest.mark.parametrize("prefix", ["data:image/{};base64,", "data:image/png;{};base64,"])
def test_lengths(prefix, length, read):
    """A type and each parameter have 1 to 64 characters."""
    assert is_read(prefix.format("a" * length)) is read


@pytest.mark.parametrize(("text", "size"), [("AAAAA===", 4), ("AA==AAAA", 6), ("AAAA", 3), ("AAA=", 2)])
def test_only_the_padding_is_not_counted(text, size):
    """The last two characters may be padding; = anywhere else counts like any character."""
    with pytest.raises(ImageTooLarge, match=f"holds {size} bytes"):
        decode_base64(text, max_bytes=size - 1)
