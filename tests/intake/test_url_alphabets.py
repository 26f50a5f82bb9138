"""Each character of a URL counts, wherever it stands, and so does each length."""

from __future__ import annotations

import string

import pytest

from embedding.errors import UrlRefused
from embedding.intake.limits import FetchLimits
from embedding.intake.urls import Target, parse_url, redirect


LIMITS = FetchLimits()
CHARACTERS = [*map(chr, range(0x300)), "\u2028", "\u3000", "\ufeff", "\u200b"]
NAME = set(string.ascii_letters + string.digits + "-_")
AMBIGUOUS = {character for character in CHARACTERS if character.isspace() or not character.isprintable()} | {
    "\\"
}
AMBIGUOUS -= {
    "\xad",
    "\ufeff",
    "\u200b",
}  # not printed, yet neither space nor control: quoted like any letter


def passes(url: str) -> bool:
    """Whether the URL is one that may be asked for."""
    try:
        parse_url(url, LIMITS)
    except UrlRefused:
        return False
    return True


@pytest.mark.parametrize(
    "url", ["https://example.com/{}", "https://example.com/?{}x", "https://example.com/#{}"]
)
def test_characters_after_the_host(url):
    """Space, controls and the backslash are refused; whatever else stands after the host is quoted."""
    assert {each for each in CHARACTERS if not passes(url.format(each))} == AMBIGUOUS


@pytest.mark.parametrize("host", ["a{}b.example", "example.a{}b", "www.a{}b.example"])
def test_characters_of_a_name(host):
    """A name is made of letters, digits, hyphens and underscores, in each of its labels."""
    ends_the_label = set("./?#")

    assert {each for each in CHARACTERS if passes(f"https://{host.format(each)}/")} == NAME | ends_the_label


@pytest.mark.parametrize("host", ["2606::{}", "{}606::1", "26{}6::1", "2606::1.2.3.{}"])
def test_digits_of_an_address(host):
    """An address in brackets is made of hexadecimal digits in either case."""
    digits = set(string.digits) if "." in host else set(string.hexdigits)

    assert {
        each for each in string.ascii_letters + string.digits if passes(f"https://[{host.format(each)}]/")
    } == digits


@pytest.mark.parametrize(
    ("length", "allowed"), [(0, False), (1, True), (2, True), (62, True), (63, True), (64, False)]
)
@pytest.mark.parametrize("host", ["{}", "{}.example", "example.{}", "example.{}.example"])
def test_length_of_a_label(host, length, allowed):
    """A label has 1 to 63 characters, wherever it stands; the name may end in one dot."""
    ends_in_a_dot = host == "example.{}" and length == 0

    assert passes(f"https://{host.format('a' * length)}/") is (allowed or ends_in_a_dot)


@pytest.mark.parametrize(("length", "allowed"), [(252, True), (253, True), (254, False)])
def test_length_of_a_name(length, allowed):
    """A name has 253 characters at most, the dot at its end not counted."""
    name = "a." * 120 + "a" * (length - 240)

    assert passes(f"https://{name}/") is allowed
    assert passes(f"https://{name}./") is allowed


@pytest.mark.parametrize(("length", "allowed"), [(2047, True), (2048, True), (2049, False)])
def test_length_of_a_url(length, allowed):
    """A URL has 2,048 characters at most."""
    assert passes("https://example.com/".ljust(length, "a")) is allowed


@pytest.mark.parametrize(
    ("port", "allowed"), [(79, False), (80, True), (81, False), (442, False), (443, True), (444, False)]
)
def test_ports(port, allowed):
    """The two ports of the web are allowed, their neighbours are not."""
    assert passes(f"https://example.com:{port}/") is allowed


def test_plain_http_may_lead_to_plain_http():
    """Where http is allowed at all, a redirect may stay there, or leave for https."""
    limits, origin = FetchLimits(allow_http=True), Target("http", "example.com", 80, "/a")

    assert redirect(origin, "/b", limits) == Target("http", "example.com", 80, "/b")
    assert redirect(origin, "https://example.com/", limits) == Target("https", "example.com", 443, "/")
