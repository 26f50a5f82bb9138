"""No socket is ever opened to a refused address, on whatever way a URL leads there.

The policy is the worker's own. Only the internet is replaced: what is dialled is written down, one public
address leads to a server of the test, and every other one answers nothing. An audit hook sees the sockets
that are really connected, whoever connects them.
"""

from __future__ import annotations

import socket
import sys
from contextlib import contextmanager
from http.client import NotConnected
from ipaddress import IPv6Address, ip_address, ip_network

import pytest

from embedding.errors import DownloadError, UrlRefused
from embedding.intake.connection import PinnedConnection
from embedding.intake.fetch import Fetcher, FetchLimits, system_addresses
from embedding.intake.urls import Place
from tests.intake.servers import HERE, Resolver, Server, answer, last, moved, ok
from tests.intake.test_addresses import NETWORKS, REFUSED


pytestmark = pytest.mark.enable_socket  # the guard of the other tests would hide what is dialled

PUBLIC = "93.184.216.34"
SPELLINGS = [
    "127.1",
    "0x7f.1",
    "0x7f000001",
    "2130706433",
    "0177.0.0.1",
    "017700000001",
    "0",
    "localhost",
    "localhost.",
    "①②⑦.0.0.1",
    "127。0。0。1",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:a9fe:a9fe]",
    "[::ffff:169.254.169.254]",
    "example.com@169.254.169.254",
    "127.0.0.1\\@example.com",
]
# As the table of refusals names them; NETWORKS holds what is left of IPv6 in three large parts.
IPV6_NETWORKS = [
    "::/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
]


def ends(network):
    """Return first, second and last address of *network*."""
    network = ip_network(network)
    return [str(network[offset]) for offset in (0, 1 % network.num_addresses, -1)]


def in_url(address):
    """Return *address* as the host of a URL."""
    return f"[{address.replace('%', '%25')}]" if ":" in address and "[" not in address else address


def carriers(address):
    """Return the forms of IPv6 that carry *address*: mapped, compatible, 6to4, NAT64, Teredo, ISATAP."""
    value = int(ip_address(address))
    numbers = [
        0xFFFF << 32 | value,
        value,
        0x2002 << 112 | value << 80,
        0x64FF9B << 96 | value,
        0x64FF9B0001 << 80 | value,
        0x2001_0000 << 96 | value ^ 0xFFFF_FFFF,
        0x2001_4860 << 96 | 0x5EFE << 32 | value,
        0x2001_4860 << 96 | 0x0200_5EFE << 32 | value,
    ]
    return [str(IPv6Address(number)) for number in numbers]


NAMES = [name for name, _, _ in NETWORKS] + IPV6_NETWORKS
CARRIED = [
    carrier for address in ("127.0.0.1", "10.0.0.1", "169.254.169.254") for carrier in carriers(address)
]
ADDRESSES = list(dict.fromkeys([*(end for name in NAMES for end in ends(name)), *REFUSED, *CARRIED]))
OUTSIDE = [
    str(address)
    for name, before, after in NETWORKS
    for address, allowed in (
        (ip_network(name).network_address - 1 if before else None, before),
        (ip_network(name).broadcast_address + 1 if after else None, after),
    )
    if allowed
]


class Watch:
    """Writes down every address that a socket of this process is connected to, while *is_on*."""

    def __init__(self) -> None:
        self.is_on = False
        self.opened = set()
        sys.addaudithook(self._hear)  # which cannot be taken away again

    def _hear(self, event, arguments):
        if not self.is_on or event != "socket.connect" or arguments[0].family == socket.AF_UNIX:
            return
        self.opened.add(arguments[1][:2])
        if arguments[1][0] != HERE:
            raise ConnectionRefusedError


class Internet:
    """What stands for the internet: `dialled` holds what was dialled, `watch` what was really opened."""

    def __init__(self, watch) -> None:
        self.watch = watch
        self.server = None
        self.dialled = set()

    @contextmanager
    def with_server(self, *answers):
        """Let *answers* come from the public address."""
        self.server = Server(*answers, keeps=True)
        try:
            yield self.server
        finally:
            self.server.close()

    def opened_elsewhere(self):
        """Return what was opened besides the server."""
        return self.watch.opened - {(HERE, self.server.port if self.server else None)}


@pytest.fixture(scope="module")
def watch():
    """The hook, installed once."""
    return Watch()


@pytest.fixture
def internet(watch, monkeypatch):
    """Stand between the worker and the network."""
    internet = Internet(watch)
    connect = socket.socket.connect

    def dial(self, address):
        internet.dialled.add(address[0])
        if address[0] != PUBLIC:
            raise ConnectionRefusedError
        connect(self, (HERE, internet.server.port))

    monkeypatch.setattr(socket.socket, "connect", dial)
    watch.opened, watch.is_on = set(), True
    yield internet
    watch.is_on = False


@pytest.fixture
def fetcher(public_trust):
    """Make fetchers with the worker's policy; only the resolver is the test's."""
    made = []

    def make(resolver):
        limits = FetchLimits(allow_http=True, backoff_base_s=0, max_attempts=2)
        made.append(Fetcher(limits, resolver=resolver, tls=public_trust))
        return made[-1]

    yield make
    for fetcher in made:
        fetcher.close()


class TestRefused:
    """Zero connections to a refused address, on each of five ways."""

    @pytest.mark.parametrize("host", [*map(in_url, ADDRESSES), *SPELLINGS])
    def test_as_a_literal(self, internet, fetcher, host):
        """A URL may name the address, in any spelling that the system's resolver reads."""
        for scheme in ("http", "https"):
            with pytest.raises(UrlRefused):
                fetcher(system_addresses).fetch(f"{scheme}://{host}/latest/meta-data/")

        assert internet.dialled | internet.opened_elsewhere() == set()

    @pytest.mark.parametrize("address", ADDRESSES)
    def test_as_an_answer_of_dns(self, internet, fetcher, address):
        """A name may resolve to it."""
        with pytest.raises(UrlRefused):
            fetcher(Resolver([address])).fetch("https://metadata.google.internal/")

        assert internet.dialled | internet.opened_elsewhere() == set()

    @pytest.mark.parametrize("address", ADDRESSES)
    def test_among_other_answers(self, internet, fetcher, address):
        """A name may resolve to it and to a public address, in either order: neither is dialled."""
        for answers in ([PUBLIC, address], [address, PUBLIC]):
            with pytest.raises(UrlRefused):
                fetcher(Resolver(answers)).fetch("https://a.test/")

        assert internet.dialled | internet.opened_elsewhere() == set()

    @pytest.mark.parametrize("host", [*map(in_url, ADDRESSES), *SPELLINGS])
    def test_behind_a_redirect(self, internet, fetcher, host):
        """A public server may lead there, by address or by any spelling; it alone is dialled."""

        def resolve(name, port):
            return [PUBLIC] if name == "a.test" else system_addresses(name, port)

        location = f"http://{host}/".encode().decode("latin-1")
        with internet.with_server(moved(location)):
            with pytest.raises(UrlRefused):
                fetcher(resolve).fetch("http://a.test/")

            assert internet.dialled == {PUBLIC}
            assert internet.opened_elsewhere() == set()

    @pytest.mark.parametrize("address", ADDRESSES)
    def test_after_rebinding(self, internet, fetcher, address):
        """A name may be public first and then not: no download looks twice, and the next one refuses."""
        resolver = Resolver([PUBLIC], [address])
        with internet.with_server(last(answer(503)), last(moved("/again")), last(ok(b"picture"))) as server:
            fetching = fetcher(resolver)

            assert fetching.fetch("http://a.test/") == b"picture"
            server.hang_up()
            with pytest.raises(UrlRefused):
                fetching.fetch("http://a.test/")

            assert server.connections == 3
            assert internet.dialled == {PUBLIC}
            assert internet.opened_elsewhere() == set()

    @pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "fd00:ec2::254"])
    def test_after_rebinding_a_kept_connection(self, internet, fetcher, address):
        """A kept connection leads where it led before, whatever the name has come to mean."""
        resolver = Resolver([PUBLIC], [address])
        with internet.with_server(ok(b"picture")) as server:
            fetching = fetcher(resolver)

            assert [fetching.fetch("http://a.test/") for _ in range(3)] == [b"picture"] * 3
            assert server.connections == 1
            assert resolver.asked == ["a.test"]
            assert internet.dialled == {PUBLIC}
            assert internet.opened_elsewhere() == set()


class TestAllowed:
    @pytest.mark.parametrize("address", OUTSIDE)
    def test_just_outside_is_dialled(self, internet, fetcher, address):
        """The address before or after a refused network is dialled, as itself."""
        if ip_address(address).version == 6 and not _has_ipv6():
            pytest.skip("this machine has no IPv6")
        with pytest.raises(DownloadError) as failure:
            fetcher(Resolver([address])).fetch("https://a.test/")

        assert not isinstance(failure.value, UrlRefused)
        assert internet.dialled == {address}
        assert internet.watch.opened == set()

    def test_a_connection_does_not_dial_by_itself(self, internet, public_trust):
        """One that is not open stays so: `http.client` would look its host up and dial."""
        connection = PinnedConnection(Place("http", PUBLIC, 80), tls=public_trust, limits=FetchLimits())
        with pytest.raises(NotConnected):
            connection.request("GET", "/")

        assert internet.dialled == set()

    def test_what_is_really_opened_is_seen(self, internet, fetcher):
        """The watch sees the one connection there is, and would see any other."""
        with internet.with_server(ok(b"picture")) as server:
            assert fetcher(Resolver([PUBLIC])).fetch("http://a.test/") == b"picture"
            assert internet.watch.opened == {(HERE, server.port)}

        with pytest.raises(ConnectionRefusedError), socket.socket() as other:
            socket.socket.connect_ex(other, ("10.0.0.1", 80))
        assert internet.opened_elsewhere() == {("10.0.0.1", 80)}


def _has_ipv6():
    try:
        socket.socket(socket.AF_INET6).close()
    except OSError:
        return False
    return True
