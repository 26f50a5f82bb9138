"""One secret or several are read from one setting, never shown, and can be rotated without a gap."""

from __future__ import annotations

import string

import pytest

from embedding.contract.canonical import Signable
from embedding.contract.keys import Key, Keyring
from embedding.contract.signatures import sign_v2
from tests.contract.signing import (
    CHARACTERS,
    NEW,
    NOW,
    OLD,
    RING,
    accepts_item,
    accepts_job,
    signed,
    signed_by_hand,
    verifier,
)


def test_one_bare_secret_is_the_default_key():
    """A bare secret needs no kid; space around it, as files and shells add, is no part of it."""
    assert Keyring.parse("s" * 32 + "\n") == Keyring((Key("default", b"s" * 32),))


def test_pairs_keep_their_order_and_the_last_one_signs():
    """Pairs go from oldest to newest; a secret may hold colons."""
    ring = Keyring.parse(f"old:{'o' * 32}, new : {'n:' * 16}")

    assert ring.keys == (OLD, Key("new", b"n:" * 16))
    assert ring.newest.kid == "new"


@pytest.mark.parametrize(
    ("secret", "enough"), [("s" * 31, False), ("s" * 32, True), ("s" * 33, True), ("ä" * 16, True)]
)
@pytest.mark.parametrize("prefix", ["", "kid:", f"other:{'o' * 32},kid:"])
def test_a_secret_has_32_bytes_or_more(prefix, secret, enough):
    """A short secret is refused wherever it stands; bytes count, not characters."""
    if enough:
        assert Keyring.parse(prefix + secret).newest.secret == secret.encode()
    else:
        with pytest.raises(
            ValueError, match="EMBEDDING_HMAC_SECRET: every secret must have at least 32 bytes"
        ):
            Keyring.parse(prefix + secret)


@pytest.mark.parametrize("kid", ["{}", "a{}", "{}a"])
def test_kid_alphabet(kid):
    """A kid is written in A-Z a-z 0-9 . _ -, each of them and nothing else, wherever it stands."""
    taken = {character for character in CHARACTERS if is_kid(kid.format(character))}

    assert taken == set(string.ascii_letters + string.digits + "._-")


def is_kid(text: str) -> bool:
    """Whether a key may have this id."""
    try:
        return Key(text, b"s" * 32).kid == text
    except ValueError:
        return False


@pytest.mark.parametrize(
    "setting",
    [
        "",
        "  ",
        ",",
        "kid:",
        f":{'s' * 32}",
        f"{'s' * 32},{'t' * 32}",
        f"kid:{'s' * 32},",
        f"kid:{'s' * 32},kid:{'t' * 32}",
        f"{'k' * 65}:{'s' * 32}",
        f"k\u00efd:{'s' * 32}",
        f"two words:{'s' * 32}",
        "s" * 32 + "\ud800",
    ],
)
def test_a_setting_it_cannot_read_is_named_but_not_quoted(setting):
    """A fault in the setting is one sentence with its name and no part of a secret."""
    with pytest.raises(ValueError, match=r"^EMBEDDING_HMAC_SECRET") as fault:
        Keyring.parse(setting)

    assert "ssss" not in str(fault.value)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("shown", [repr, str, lambda ring: f"{ring.newest!r} {ring.keys}"])
def test_no_text_form_shows_a_secret(shown):
    """Printing a keyring or a key shows kids alone."""
    text = shown(RING)

    assert "new" in text
    assert "nnnn" not in text
    assert "oooo" not in text


def test_rotation():
    """Callers on the old and on the new secret are served until the old one is removed."""
    old_ring, both, new_ring = Keyring((OLD,)), RING, Keyring((NEW,))
    by_old, by_new = signed(key=OLD, nonce="o" * 16), signed(key=NEW, nonce="n" * 16)

    served = [
        [accepts_job(job, by=verifier(ring)) for job in (by_old, by_new)]
        for ring in (old_ring, both, new_ring)
    ]

    assert served == [[True, False], [True, True], [False, True]]


def test_rotation_of_item_signatures():
    """v1 and v2 name no key: any active one verifies, a removed one does not."""
    item = Signable(text="a cat")
    by_old, by_new = sign_v2(item, OLD, now=NOW), sign_v2(item, NEW, now=NOW)

    assert accepts_item(by_old, item)
    assert accepts_item(by_new, item)
    assert not accepts_item(by_old, item, by=verifier(Keyring((NEW,))))


@pytest.mark.parametrize("kid", ["new", "nobody"])
def test_a_kid_belongs_to_its_secret(kid):
    """A right secret under another kid, or one that nobody has, is refused: kids tell callers apart."""
    assert not accepts_job(signed_by_hand(key=OLD, kid=kid))


def test_a_bare_secret_rotates_as_default():
    """What a bare secret has signed stays valid after `default:SECRET,new:SECRET` replaces it."""
    job = signed(key=Keyring.parse("o" * 32).newest)

    assert accepts_job(job, by=verifier(Keyring.parse(f"default:{'o' * 32},new:{'n' * 32}")))
