"""Both judges of an address count: our table knows its networks by itself, and so does the interpreter."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest

from embedding.intake.addresses import GLOBAL_UNICAST, REFUSED_IPV4, REFUSED_IPV6, is_public


# The special-purpose registries of IANA, and two addresses of cloud providers that they do not know.
IPV4 = [
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16",
    "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
    "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
]  # fmt: skip
IPV6 = ["2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"]


def test_the_tables():
    """Each network stands in our own table, whatever the interpreter knows of it."""
    assert [str(network) for network in REFUSED_IPV4] == IPV4
    assert [str(network) for network in REFUSED_IPV6] == IPV6
    assert str(GLOBAL_UNICAST) == "2000::/3"


@pytest.mark.parametrize(
    ("address", "kind"), [("8.8.8.8", IPv4Address), ("::ffff:8.8.8.8", IPv4Address), ("2606::1", IPv6Address)]
)
def test_the_interpreter_may_know_more(monkeypatch, address, kind):
    """An address that a later interpreter holds to be special is refused before our table knows it."""
    assert is_public(address) is True
    monkeypatch.setattr(kind, "is_global", False)

    assert is_public(address) is False


@pytest.mark.parametrize(
    "address", ["localhost", "127.0.0.1", "::1", "2606::1%eth0", "2002::1", "::ffff:127.0.0.1"]
)
def test_a_refusal_is_false(address):
    """The answer is a plain false, whatever the reason."""
    assert is_public(address) is False


@pytest.mark.parametrize(
    ("interface", "allowed"),
    [
        ("0:5efd", True), ("0:5efe", False), ("0:5eff", True), ("1:5efe", True),
        ("1ff:5efe", True), ("200:5efd", True), ("200:5efe", False), ("200:5eff", True), ("201:5efe", True),
        ("8000:5efe", True), ("0:0", True),
    ],
)  # fmt: skip
def test_isatap_is_known_by_32_bits(interface, allowed):
    """Exactly two upper halves of an interface id mean ISATAP; their neighbours are plain addresses."""
    assert is_public(f"2001:4860:0:1:{interface}:808:808") is allowed
