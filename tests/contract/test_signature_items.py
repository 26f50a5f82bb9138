"""One image or text is accepted under v1 or v2 as it was signed, and in no other place."""

from __future__ import annotations

import hashlib
import math

import pytest

from embedding.contract.canonical import Signable
from embedding.contract.keys import Key
from embedding.contract.signatures import Verifier, covers_job, sign_v2
from embedding.errors import InvalidInput
from tests.contract.signing import (
    NEW,
    NOW,
    RING,
    URL,
    accepts_item,
    accepts_job,
    flipped,
    signed,
    v1,
    verifier,
)


ITEMS = [
    Signable(image_url=URL),
    Signable(image_url=URL, in_batch=True),
    Signable(image_url="HTTP://images.example.com/\u732b|1.jpg"),
    Signable(image_bytes=b"\x89PNG"),
    Signable(image_bytes=b"\x89PNG", in_batch=True),
    Signable(image_bytes=b""),
    Signable(text="a cat"),
    Signable(text=""),
    Signable(text="\U0001f6b2"),
]


@pytest.mark.parametrize("signed_for", ITEMS, ids=repr)
@pytest.mark.parametrize("used_for", ITEMS, ids=repr)
def test_a_v2_signature_serves_the_item_it_was_made_for(signed_for, used_for):
    """No signature moves to another content, kind, or from a job into a batch."""
    assert accepts_item(sign_v2(signed_for, NEW, now=NOW), used_for) is (signed_for == used_for)


def test_a_text_is_signed_alike_alone_and_in_a_batch():
    """Texts have one path."""
    assert accepts_item(sign_v2(Signable(text="a cat"), NEW, now=NOW), Signable(text="a cat", in_batch=True))


@pytest.mark.parametrize(
    ("item", "accepted"),
    [
        (Signable(image_url=URL), True),
        (Signable(image_url=URL, in_batch=True), False),
        (Signable(image_url=URL + "?"), False),
        (Signable(text=URL), False),
        (Signable(image_bytes=URL.encode()), False),
    ],
)
def test_v1_serves_single_image_urls_alone(item, accepted):
    """v1 covers a URL and nothing else."""
    assert accepts_item(v1(), item) is accepted


@pytest.mark.parametrize(
    ("min_version", "accepted"),
    [(1, (True, True, True)), (2, (False, True, True)), (3, (False, False, True))],
)
def test_min_version(min_version, accepted):
    """Versions below AUTH_MIN_VERSION are refused though their signature is right."""
    worker, item = verifier(min_version=min_version), Signable(image_url=URL)

    assert accepted == (
        accepts_item(v1(), item, by=worker),
        accepts_item(sign_v2(item, NEW, now=NOW), item, by=worker),
        accepts_job(signed(), by=worker),
    )


@pytest.mark.parametrize(
    ("offset_s", "accepted"),
    [(-121, False), (-120, True), (-119, True), (119, True), (120, True), (121, False)],
)
@pytest.mark.parametrize("auth", [v1(), sign_v2(Signable(image_url=URL), NEW, now=NOW)], ids=["v1", "v2"])
def test_window(auth, offset_s, accepted):
    """The clocks may differ by the window, both ways, inclusive."""
    assert accepts_item(auth, Signable(image_url=URL), by=verifier(now=NOW + offset_s)) is accepted


@pytest.mark.parametrize(("ts", "accepted"), [(-1, False), (0, True), (2**53 - 1, True), (2**53, False)])
def test_range_of_ts(ts, accepted):
    """A ts lies between the epoch and what JSON carries exactly."""
    assert accepts_item(v1(ts=ts), Signable(image_url=URL), by=verifier(now=ts)) is accepted


@pytest.mark.parametrize("ts", [True, 1.0, "1", "01", None])
def test_a_right_signature_does_not_excuse_a_wrong_type(ts):
    """A ts is an integer, though another spelling of it was signed."""
    assert not accepts_item(v1(ts=ts), Signable(image_url=URL), by=verifier(now=1))


@pytest.mark.parametrize(
    "ts", [math.nan, math.inf, pytest.param(10**5000, id="huge"), "\u0661", "\ud800", [NOW], {}]
)
def test_a_malformed_ts_is_refused(ts):
    """A ts is an integer; anything else is refused before it is used."""
    assert not accepts_item({"ts": ts, "sig": v1()["sig"]}, Signable(image_url=URL))


@pytest.mark.parametrize(
    "auth",
    [
        None, True, "", [], {}, {"ts": NOW}, {"sig": "0" * 64}, {**v1(), "v": 1}, {**v1(), "v": 3},
        {**v1(), "sig": None}, {**v1(), "sig": "\u00e9" * 64}, {**v1(), "sig": "\ud800" * 64},
        {**v1(), "sig": v1()["sig"] + "0"}, {**v1(), "sig": v1()["sig"][:-1]}, {**v1(), "sig": b"0" * 64},
        {**v1(), "sig": flipped(v1()["sig"], 63)}, {**v1(), "ts": NOW + 1}, v1(key=Key("x", b"x" * 32)),
        signed()["auth"],
    ],
)  # fmt: skip
def test_a_malformed_or_foreign_auth_is_refused(auth):
    """Other fields, types, keys, and whole-job signatures do not serve an item."""
    assert not accepts_item(auth, Signable(image_url=URL))


@pytest.mark.parametrize(
    "item",
    [
        Signable(),
        Signable(image_url=URL, text="a cat"),
        Signable(image_url=URL, image_bytes=b"", text=""),
        Signable(image_url="\ud800"),
        Signable(image_url="https://\ud800"),
        Signable(image_url="ftp://images.example.com/"),
        Signable(image_url=1),
        Signable(image_url=f"POST|/v1/embed/image|{URL}"),
        Signable(image_url=hashlib.sha256(b"\x89PNG").hexdigest()),
        Signable(text="\ud800"),
        Signable(text=1),
    ],
    ids=repr,
)
def test_an_item_that_cannot_be_signed_is_refused(item):
    """One content of the right type, and only web URLs, so that no message has two readings."""
    assert not accepts_item({"ts": NOW, "sig": "0" * 64}, item)
    with pytest.raises(InvalidInput):
        sign_v2(item, NEW)


@pytest.mark.parametrize(
    ("item", "told"),
    [
        (Signable(image_url=1), "image_url must be a string"),
        (Signable(image_url="\ud800"), "image_url must be valid Unicode text"),
        (Signable(text=1), "text must be a string"),
        (Signable(text="\ud800"), "text must be valid Unicode text"),
    ],
    ids=repr,
)
def test_signing_names_the_field(item, told):
    """A client hears which field cannot be signed."""
    with pytest.raises(InvalidInput) as fault:
        sign_v2(item, NEW)

    assert fault.value.message == told


def test_a_picture_is_not_printed():
    """The bytes of an image do not reach a log through what they were signed as."""
    assert "PNG" not in repr(Signable(image_bytes=b"\x89PNG"))


def test_a_v1_signature_covers_no_second_content():
    """An image's right v1 signature does not carry a text along."""
    assert accepts_item(v1(), Signable(image_url=URL))
    assert not accepts_item(v1(), Signable(image_url=URL, text="a cat"))
    assert not accepts_item(v1(), Signable(image_url=URL, image_bytes=b"\x89PNG"))


def test_a_v2_signature_cannot_be_dressed_as_v1():
    """A captured v2 message used as a v1 URL is refused though its MAC would be right."""
    captured = sign_v2(Signable(image_url=URL), NEW, now=NOW)

    assert not accepts_item(captured, Signable(image_url=f"POST|/v1/embed/image|{URL}"))


def test_an_item_signed_by_the_clock():
    """Without `now` an item is signed now."""
    assert accepts_item(sign_v2(ITEMS[0], NEW), ITEMS[0], by=Verifier(RING))


@pytest.mark.parametrize(
    ("auth", "covers"),
    [(signed()["auth"], True), ({"v": 9}, True), (v1(), False), (None, False), ("v", False)],
)
def test_covers_job(auth, covers):
    """Whatever names a version claims to cover the whole job, and is judged as that."""
    assert covers_job(auth) is covers
