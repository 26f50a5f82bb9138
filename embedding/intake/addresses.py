"""Which addresses this worker may connect to: public unicast, and nothing else.

Threat: a caller's URL that leads to a neighbour instead of the internet, such as a cloud's metadata service
at 169.254.169.254, or a form of IPv6 that carries an IPv4 address past the check (6to4, NAT64, Teredo,
ISATAP). The decision is about a resolved address, never about a host name.

The table is our own, from the IANA special-purpose registries, because `ipaddress.is_global` changes with the
interpreter (CVE-2024-4032) and is true for 6to4, NAT64, multicast, 192.0.0.192 (Oracle's metadata service)
and 168.63.129.16 (Azure's WireServer). An address must pass both.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final


REFUSED_IPV4: Final = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network, RFC 791
        "10.0.0.0/8",  # private, RFC 1918
        "100.64.0.0/10",  # carrier-grade NAT, RFC 6598; Alibaba's metadata service
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's WireServer
        "169.254.0.0/16",  # link-local; metadata services of AWS, GCP, Azure
        "172.16.0.0/12",  # private, RFC 1918
        "192.0.0.0/24",  # IETF protocol assignments; Oracle's metadata service
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays, deprecated by RFC 7526
        "192.168.0.0/16",  # private, RFC 1918
        "198.18.0.0/15",  # benchmarking, RFC 2544
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
GLOBAL_UNICAST: Final = IPv6Network("2000::/3")  # all that IANA has opened; everything else is refused
REFUSED_IPV6: Final = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # IETF protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: carries an IPv4 address
        "3fff::/20",  # documentation, RFC 9637
    )
)
# RFC 5214: the upper half of an interface id that carries an IPv4 address.
_ISATAP: Final = (0x0000_5EFE, 0x0200_5EFE)


def is_public(address: str | IPv4Address | IPv6Address) -> bool:
    """Return whether *address* may be dialled; false for anything that is not an IP address.

    An IPv4 address mapped into IPv6 gets the answer of the IPv4 address.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address):
        if parsed.scope_id is not None:
            return False
        if parsed.ipv4_mapped is None:
            return _is_public_ipv6(parsed)
        parsed = parsed.ipv4_mapped
    return parsed.is_global and not any(parsed in network for network in REFUSED_IPV4)


def _is_public_ipv6(address: IPv6Address) -> bool:
    interface_prefix = int(address) >> 32 & 0xFFFF_FFFF
    return (
        address in GLOBAL_UNICAST
        and address.is_global
        and interface_prefix not in _ISATAP
        and not any(address in network for network in REFUSED_IPV6)
    )
