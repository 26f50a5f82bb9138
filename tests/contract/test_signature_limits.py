"""Every limit of a whole-job signature holds one below, at, and one above."""

from __future__ import annotations

import json
import string
import time

import pytest

from embedding.contract.canonical import MAX_DEPTH, MAX_VALUES, canonical_json
from embedding.contract.keys import Key, Keyring
from embedding.contract.signatures import Verifier, sign_v3
from embedding.errors import InvalidInput
from tests.contract.signing import (
    CHARACTERS,
    JOB,
    NEW,
    NONCE,
    NOW,
    RING,
    accepts_job,
    signed,
    signed_by_hand,
    verifier,
    with_auth,
)


@pytest.mark.parametrize(
    ("lifetime_s", "accepted"),
    [(-1, False), (0, False), (1, True), (3599, True), (3600, True), (3601, False)],
)
def test_lifetime(lifetime_s, accepted):
    """A signature lives 1 to 3600 seconds."""
    assert accepts_job(signed_by_hand(exp=NOW + lifetime_s)) is accepted


@pytest.mark.parametrize(("lifetime_s", "accepted"), [(59, True), (60, True), (61, False)])
def test_a_worker_may_ask_for_shorter_lives(lifetime_s, accepted):
    """max_lifetime_s is inclusive."""
    assert accepts_job(signed_by_hand(exp=NOW + lifetime_s), by=verifier(max_lifetime_s=60)) is accepted


@pytest.mark.parametrize(
    ("now", "accepted"),
    [
        (NOW - 121, False), (NOW - 120.5, False), (NOW - 120, True), (NOW - 119, True),
        (NOW + 599, True), (NOW + 600, True), (NOW + 600.9, True), (NOW + 601, False),
    ],
)  # fmt: skip
def test_time(now, accepted):
    """Valid from the window before iat to the whole second of exp, however long the queue was."""
    assert accepts_job(signed(lifetime_s=600), by=verifier(now=now)) is accepted


@pytest.mark.parametrize(
    ("length", "accepted"), [(15, False), (16, True), (17, True), (63, True), (64, True), (65, False)]
)
def test_nonce_length(length, accepted):
    """A nonce has 16 to 64 characters."""
    assert accepts_job(signed_by_hand(nonce="x" * length)) is accepted


@pytest.mark.parametrize("place", [f"{{}}{NONCE}", f"{NONCE}{{}}"])
def test_nonce_alphabet(place):
    """A nonce is written in A-Z a-z 0-9 _ -, each of them and nothing else."""
    taken = {each for each in CHARACTERS if accepts_job(job_with_nonce(place.format(each)))}

    assert taken == set(string.ascii_letters + string.digits + "_-")


def job_with_nonce(nonce: str) -> dict:
    """A job that its caller signed with this nonce, if it has a signature at all."""
    try:
        return signed_by_hand(nonce=nonce)
    except UnicodeEncodeError:
        return with_auth(nonce=nonce)


@pytest.mark.parametrize(("length", "accepted"), [(0, False), (1, True), (64, True), (65, False)])
def test_kid_length(length, accepted):
    """A kid has 1 to 64 characters, in a keyring as in a signature."""
    if accepted:
        key = Key("k" * length, b"s" * 32)
        assert accepts_job(signed(key=key), by=verifier(Keyring((key,))))
    else:
        assert not accepts_job(with_auth(kid="k" * length))
        with pytest.raises(ValueError, match="key id"):
            Key("k" * length, b"s" * 32)


@pytest.mark.parametrize(
    "sig",
    [lambda sig: sig[:-1], lambda sig: sig + "0", lambda sig: sig + "\n", lambda sig: " " + sig[1:]],
)
def test_the_signature_has_64_digits(sig):
    """A shortened MAC is no MAC."""
    assert not accepts_job(with_auth(sig=sig(signed()["auth"]["sig"])))


@pytest.mark.parametrize(("iat", "accepted"), [(-1, False), (0, True), (1, True)])
def test_time_starts_at_zero(iat, accepted):
    """There is no time before the epoch."""
    assert accepts_job(signed_by_hand(iat=iat, exp=iat + 60), by=verifier(now=1)) is accepted


@pytest.mark.parametrize(("exp", "accepted"), [(2**53 - 2, True), (2**53 - 1, True), (2**53, False)])
def test_time_ends_where_json_loses_exactness(exp, accepted):
    """No time lies beyond 2**53 - 1."""
    assert accepts_job(signed_by_hand(iat=exp - 60, exp=exp), by=verifier(now=exp - 60)) is accepted


@pytest.mark.parametrize(
    ("iat", "exp"), [(True, 60), (1.0, 60), ("1", 60), (None, 60), (0, True), (1, 60.0), (1, "60"), (1, None)]
)
def test_a_right_signature_does_not_excuse_a_wrong_type(iat, exp):
    """Times are integers, though another spelling of them was signed."""
    assert not accepts_job(signed_by_hand(iat=iat, exp=exp), by=verifier(now=1))


@pytest.mark.parametrize(
    "options", [{"lifetime_s": 1}, {"lifetime_s": 2}, {"lifetime_s": 3599}, {"lifetime_s": 3600}]
)
def test_signing_for_any_time_that_is_accepted(options):
    """Both ends of a lifetime can be signed for."""
    auth = sign_v3(JOB, NEW, now=NOW, **options)

    assert auth["exp"] - NOW == options["lifetime_s"]
    assert accepts_job({**JOB, "auth": auth})


@pytest.mark.parametrize(
    "options", [{"lifetime_s": 0}, {"lifetime_s": 3601}, {"nonce": "x" * 15}, {"nonce": "x" * 65}]
)
def test_signing_refuses_what_no_worker_would_accept(options):
    """A client hears of its own mistake before it sends anything."""
    with pytest.raises(InvalidInput):
        sign_v3(JOB, NEW, **options)


def test_signing_by_the_clock():
    """Without options a signature is issued now, for an hour, with a nonce of its own."""
    first, second = sign_v3(JOB, NEW), sign_v3(JOB, NEW)

    assert abs(first["iat"] - time.time()) < 5
    assert first["exp"] - first["iat"] == 3600
    assert first["nonce"] != second["nonce"]
    assert len(first["nonce"]) == 32  # 192 random bits
    assert accepts_job({**JOB, "auth": first}, by=Verifier(RING))


@pytest.mark.parametrize(
    ("count", "fits"), [(MAX_VALUES - 2, True), (MAX_VALUES - 1, True), (MAX_VALUES, False)]
)
def test_the_number_of_values_is_bounded(count, fits):
    """A field's list and the members of it may be MAX_VALUES together."""
    assert_canonical({"x": [1] * count}, fits=fits)


@pytest.mark.parametrize(
    ("depth", "fits"), [(MAX_DEPTH - 1, True), (MAX_DEPTH, True), (MAX_DEPTH + 1, False)]
)
@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"x": inner}])
def test_the_depth_is_bounded(wrap, depth, fits):
    """Lists and objects nest up to MAX_DEPTH."""
    nested = 1
    for _ in range(depth):
        nested = wrap(nested)

    assert_canonical(nested, fits=fits)


def assert_canonical(value: object, *, fits: bool) -> None:
    """Assert that the value has a canonical form, or is refused by the limit."""
    if fits:
        assert json.loads(canonical_json(value)) == value
    else:
        with pytest.raises(InvalidInput, match="20000 values or 32 levels"):
            canonical_json(value)
