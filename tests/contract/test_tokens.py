"""Bearer tokens are read from one setting, never shown, and compared whole."""

from __future__ import annotations

import pytest

from embedding.contract.tokens import MAX_TOKENS, Tokens


OLD, NEW = "o" * 32, "n" * 32


def test_every_token_is_good():
    """Several serve at once, for rotation; space around them is no part of them."""
    tokens = Tokens.parse(f" {OLD} ,{NEW},")

    assert tokens.accept(OLD)
    assert tokens.accept(NEW)


@pytest.mark.parametrize(
    "token", ["", OLD[:-1], f"{OLD}o", OLD.upper(), f"{OLD},{NEW}", "\udcff" * 32, "ö" * 32]
)
def test_no_other_is(token):
    """A token that is short, long, or near is refused, whatever it is made of."""
    assert not Tokens.parse(f"{OLD},{NEW}").accept(token)


@pytest.mark.parametrize(("token", "enough"), [("t" * 31, False), ("t" * 32, True), ("t" * 33, True)])
def test_a_token_has_32_bytes_or_more(token, enough):
    """A shorter one is refused by a line that names the setting and shows no token."""
    if enough:
        assert Tokens.parse(token).accept(token)
    else:
        with pytest.raises(ValueError, match="WORKER_TOKEN: every token must have at least 32 bytes") as told:
            Tokens.parse(f"{OLD},{token}")
        assert token not in str(told.value)


@pytest.mark.parametrize(("count", "allowed"), [(0, False), (1, True), (15, True), (16, True), (17, False)])
def test_as_many_as_are_compared(count, allowed):
    """There are 1 to 16."""
    setting = ",".join(f"{number:032}" for number in range(count)) or ","
    if allowed:
        assert len(Tokens.parse(setting).digests) == count <= MAX_TOKENS
    else:
        with pytest.raises(ValueError, match="WORKER_TOKEN must hold 1 to 16 tokens"):
            Tokens.parse(setting)


def test_no_repr_shows_one():
    """Neither a token nor its digest is in what is printed."""
    assert repr(Tokens.parse(OLD)) == "Tokens()"
