"""Which addresses may be dialled: a table of what is refused, a table of what is not, and their edges."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding.intake.addresses import is_public


# Each with whether the address before its first and the one after its last are allowed.
NETWORKS = [
    ("0.0.0.0/8", None, True),
    ("10.0.0.0/8", True, True),
    ("100.64.0.0/10", True, True),
    ("127.0.0.0/8", True, True),
    ("168.63.129.16/32", True, True),
    ("169.254.0.0/16", True, True),
    ("172.16.0.0/12", True, True),
    ("192.0.0.0/24", True, True),
    ("192.0.2.0/24", True, True),
    ("192.88.99.0/24", True, True),
    ("192.168.0.0/16", True, True),
    ("198.18.0.0/15", True, True),
    ("198.51.100.0/24", True, True),
    ("203.0.113.0/24", True, True),
    ("224.0.0.0/4", True, False),
    ("240.0.0.0/4", False, None),
    ("::/3", None, True),
    ("2001::/23", True, True),
    ("2001:db8::/32", True, True),
    ("2002::/16", True, True),
    ("3fff::/20", True, True),
    ("4000::/2", True, False),
    ("8000::/1", False, None),
]

METADATA_SERVICES = [
    "169.254.169.254",  # AWS, GCP, Azure
    "169.254.170.2",  # AWS ECS
    "fd00:ec2::254",  # AWS, IPv6
    "100.100.100.200",  # Alibaba
    "192.0.0.192",  # Oracle
    "168.63.129.16",  # Azure's WireServer
]
REFUSED = [
    *METADATA_SERVICES,
    "::",
    "::1",
    "::7f00:1",  # IPv4-compatible
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",  # NAT64
    "64:ff9b:1::a9fe:a9fe",  # NAT64, local use
    "100::1",  # discard
    "100:0:0:1::1",
    "2001::1",  # Teredo
    "2001:db8::1",
    "2002:a9fe:a9fe::",  # 6to4
    "2001:4860::5efe:a00:1",  # ISATAP
    "2001:4860::200:5efe:8.8.8.8",  # ISATAP, global
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700::1111%eth0",
    "fec0::1",
    "ff02::1",
    "255.255.255.255",
]
NOT_ADDRESSES = [
    "",
    "localhost",
    "127.1",
    "0x7f.1",
    "2130706433",
    "0177.0.0.1",
    "1.1.1.1/32",
    " 1.1.1.1",
    "①.1.1.1",
]
ALLOWED = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "223.255.255.255",
    "::ffff:8.8.8.8",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2606:4700:4700::1111",
    "2a00:1450:4001:80b::200e",
]


class TestRefusedNetworks:
    @pytest.mark.parametrize("network", [network for network, _, _ in NETWORKS])
    def test_are_refused_from_end_to_end(self, network):
        """First, second, middle and last address of a refused network are refused, as text and as address."""
        network = ip_network(network)
        size = network.num_addresses
        for offset in {0, 1 % size, size // 2, size - 1}:
            assert not is_public(network[offset])
            assert not is_public(str(network[offset]))

    @pytest.mark.parametrize(("network", "before", "after"), NETWORKS)
    def test_end_where_they_say(self, network, before, after):
        """The address just outside either end of a refused network is allowed, or belongs to the next."""
        network = ip_network(network)

        if before is not None:
            assert is_public(network.network_address - 1) == before
        if after is not None:
            assert is_public(network.broadcast_address + 1) == after


class TestSingleAddresses:
    @pytest.mark.parametrize("address", REFUSED)
    def test_refused(self, address):
        """Whatever is not public unicast is refused, and so is every form that carries such an address."""
        assert not is_public(address)

    @pytest.mark.parametrize("address", ALLOWED)
    def test_allowed(self, address):
        """Public unicast is allowed, up to the edges of what is refused."""
        assert is_public(address)

    @pytest.mark.parametrize("text", NOT_ADDRESSES)
    def test_what_is_no_address_is_refused(self, text):
        """A name or a number is not an address, whatever a resolver would make of it."""
        assert not is_public(text)


class TestProperties:
    @given(st.ip_addresses(v=4))
    def test_a_mapped_address_is_its_ipv4_address(self, address):
        """::ffff:a gets the answer of a."""
        assert is_public(f"::ffff:{address}") == is_public(address)

    @given(st.ip_addresses(v=4))
    def test_no_other_form_carries_an_ipv4_address(self, address):
        """6to4, NAT64, Teredo, ISATAP and IPv4-compatible forms are refused whatever they carry."""
        value = int(address)
        carriers = [
            0x2002 << 112 | value << 80,
            0x64FF9B << 96 | value,
            0x64FF9B0001 << 80 | value,
            0x20010000 << 96 | value ^ 0xFFFF_FFFF,
            0x2001_4860 << 96 | 0x5EFE << 32 | value,
            0x2001_4860 << 96 | 0x0200_5EFE << 32 | value,
            value,
        ]

        assert not any(is_public(IPv6Address(carrier)) for carrier in carriers)

    @given(st.ip_addresses())
    def test_text_and_address_agree(self, address):
        """An address gets the same answer as its text."""
        assert is_public(address) == is_public(str(address))

    @given(st.text())
    def test_any_text_has_an_answer(self, text):
        """No text raises; what `ipaddress` cannot read is refused."""
        try:
            parsed = ip_address(text)
        except ValueError:
            parsed = None

        assert is_public(text) <= isinstance(parsed, IPv4Address | IPv6Address)
