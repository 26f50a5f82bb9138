"""How long an answer asks to wait, in every form that services give it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding.client.retries import LONGEST_ASKED_S, retry_after_s


NOW = "Fri, 31 Dec 1999 23:59:00 GMT"


@pytest.mark.parametrize(
    ("told", "asked_s"),
    [
        ("0", 0),
        ("3", 3),
        ("  3 ", 3),
        ("1.5", 1.5),
        ("86400", LONGEST_ASKED_S),
        ("86401", LONGEST_ASKED_S),
        ("9" * 400, LONGEST_ASKED_S),
        ("Fri, 31 Dec 1999 23:59:02 GMT", 2),
        ("Fri, 31 Dec 1999 23:58:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:00 GMT", LONGEST_ASKED_S),
    ],
)
def test_what_is_said(told, asked_s):
    """Seconds and their fractions, and dates, which are held against the answer's own; a day at most."""
    assert retry_after_s({"retry-after": told, "date": NOW}) == asked_s


@pytest.mark.parametrize(
    "told",
    ["", "soon", "-5", "-1.5", "+3", ".5", "5.", "1e3", "1_000", "\uff13", "1, 2", "nan", "inf",
     "Fri, 31 Feb 1999", "Fri, 31 Dec 1999 23:59:01 -0000", "Fri, 31 Dec 99999999999 23:59:01 GMT"],
)  # fmt: skip
def test_what_is_not_said(told):
    """What is neither is as if there were nothing."""
    assert retry_after_s({"retry-after": told, "date": NOW}) is None


def test_a_date_without_the_answers_own():
    """No clock but the answer's own tells how long a date is away."""
    assert retry_after_s({"retry-after": NOW}) is None
    assert retry_after_s({}) is None


@given(st.text(max_size=40) | st.text("0123456789:, +-GMTDecFri", max_size=40))
def test_whatever_is_said(told):
    """Anything is a time to wait, or none."""
    assert 0 <= (retry_after_s({"retry-after": told, "date": NOW}) or 0) <= LONGEST_ASKED_S
