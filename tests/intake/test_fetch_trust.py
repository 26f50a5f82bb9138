"""Where a download may lead: addresses, redirects and certificates."""

from __future__ import annotations

import pytest

from embedding.errors import DownloadError, UrlRefused
from embedding.intake.addresses import is_public
from embedding.intake.fetch import Fetcher, FetchLimits, system_addresses
from embedding.intake.urls import REFUSAL
from tests.intake.servers import HERE, OK, Resolver, answer, elapsed_s, moved, ok


LOOPBACK = ["127.0.0.1", "0x7f.1", "2130706433", "0177.0.0.1", "127.1", "017700000001", "0", "localhost"]
LITERALS = ["169.254.169.254", "[::ffff:169.254.169.254]", "[::1]", "[64:ff9b::a9fe:a9fe]"]
PRIVATE = [
    "10.0.0.1",
    "169.254.169.254",
    "192.0.0.192",
    "fd00:ec2::254",
    "::1",
    "2002:a9fe:a9fe::",
    "fe80::1%2",
]


class TestAddresses:
    @pytest.mark.parametrize("host", [*LOOPBACK, *LITERALS])
    def test_every_spelling_of_this_machine_is_refused(self, public_trust, host):
        """The resolver reads many spellings of 127.0.0.1; the address it finds is what counts."""
        with pytest.raises(UrlRefused, match="not allowed"):
            Fetcher(tls=public_trust).fetch(f"https://{host}/")

    @pytest.mark.parametrize("address", PRIVATE)
    def test_a_name_of_a_private_address_is_refused(self, public_trust, address):
        """A name that resolves to what is not public is refused, with the message of every refusal."""
        with pytest.raises(UrlRefused) as refused:
            Fetcher(resolver=Resolver([address]), tls=public_trust).fetch("https://a.test/")

        assert refused.value.message == REFUSAL
        assert not refused.value.retryable

    @pytest.mark.parametrize("address", PRIVATE)
    def test_one_private_answer_refuses_all(self, serve, fetcher, address):
        """Public and private answers together are refused, and nobody is asked."""
        server = serve(ok())
        with pytest.raises(UrlRefused):
            fetcher(server, resolver=Resolver([HERE, address])).fetch(server.url("a.test"))

        assert server.requests == []

    @pytest.mark.parametrize("host", [*LOOPBACK, *LITERALS])
    def test_a_redirect_to_a_private_address_is_refused(self, serve, public_trust, host):
        """A redirect is judged like a URL: by the addresses of its host."""
        server = serve(moved(f"http://{host}/latest/meta-data/"))
        limits = FetchLimits(allow_http=True, ports=frozenset({80, server.port}))
        resolve = {"a.test": [HERE]}
        fetcher = Fetcher(
            limits,
            resolver=lambda host, port: resolve.get(host) or system_addresses(host, port),
            is_allowed=lambda address: is_public(address) or bool(resolve.pop("a.test", None)),
            tls=public_trust,
        )
        with pytest.raises(UrlRefused):
            fetcher.fetch(server.url("a.test"))

        assert len(server.requests) == 1

    def test_a_name_is_looked_up_once(self, serve, fetcher):
        """A name that answers differently the second time is not asked a second time, whatever happens."""
        server = serve(answer(503), moved("/again"), ok(b"picture"))
        resolver = Resolver([HERE], ["169.254.169.254"])

        assert fetcher(server, resolver=resolver).fetch(server.url("a.test")) == b"picture"
        assert resolver.asked == ["a.test"]

    def test_the_next_address_is_tried(self, serve, public_trust):
        """Where one address does not answer, the next one may."""
        server = serve(ok(b"picture"))
        limits = FetchLimits(allow_http=True, ports=frozenset({server.port}))
        patient = Fetcher(
            limits, resolver=Resolver(["::1", HERE]), is_allowed=lambda _address: True, tls=public_trust
        )

        assert patient.fetch(server.url("a.test")) == b"picture"

    def test_the_system_resolver_keeps_scopes(self):
        """A link-local answer carries its scope, so that it is not taken for another address."""
        assert system_addresses("127.0.0.1", 80) == ["127.0.0.1"]
        assert system_addresses("fe80::1%1", 80) == ["fe80::1%1"]


class TestRedirects:
    def test_are_followed(self, serve, fetcher):
        """Three redirects are followed, relative or to another host, without fragment or credentials."""
        second = serve(moved("/c"), ok(b"picture"))
        first = serve(moved("b", 301), moved(second.url("b.test"), 307))

        assert fetcher(first, second).fetch(first.url("a.test", "/x/a")) == b"picture"
        assert [request.split()[1] for request in first.requests] == ["/x/a", "/x/b"]
        assert f"Host: b.test:{second.port}" in second.requests[0]

    def test_end_after_three(self, serve, fetcher):
        """A fourth redirect is one too many."""
        server = serve(moved("/loop"))
        with pytest.raises(DownloadError, match="more than 3 redirects") as failure:
            fetcher(server).fetch(server.url("a.test"))

        assert not failure.value.retryable
        assert len(server.requests) == 4

    def test_bodies_are_not_read(self, serve, fetcher):
        """A redirect with an endless body is left at its header."""
        target = serve(ok(b"picture"))
        server = serve()
        server.script(server.drip(moved(target.url("b.test")).replace(b"Content-Length: 0\r\n", b"")))

        assert fetcher(server, target).fetch(server.url("a.test")) == b"picture"

    @pytest.mark.parametrize("status", [300, 302, 304])
    def test_without_a_location_are_failures(self, serve, fetcher, status):
        """A redirect that leads nowhere is an answer like any other."""
        server = serve(answer(status))
        with pytest.raises(DownloadError, match=f"answered {status}"):
            fetcher(server).fetch(server.url("a.test"))


class TestTls:
    def test_names_stay_those_of_the_url(self, serve_tls, fetcher, trust):
        """The address is dialled, but certificate, server name and Host header are the URL's."""
        server = serve_tls("a.test", ok(b"picture"))

        assert fetcher(server, tls=trust).fetch(server.url("A.test.", scheme="https")) == b"picture"
        assert server.server_names == ["a.test"]
        assert f"Host: a.test:{server.port}" in server.requests[0]

    def test_a_certificate_for_another_name_is_refused(self, serve_tls, fetcher, trust):
        """A certificate must be for the host of the URL."""
        server = serve_tls("b.test", ok())
        with pytest.raises(DownloadError, match="certificate") as failure:
            fetcher(server, tls=trust).fetch(server.url("a.test", scheme="https"))

        assert not failure.value.retryable
        assert server.requests == []

    def test_an_unknown_authority_is_refused(self, serve_tls, fetcher):
        """A certificate that nobody public has signed is refused."""
        server = serve_tls("a.test", ok())
        with pytest.raises(DownloadError, match="certificate"):
            fetcher(server).fetch(server.url("a.test", scheme="https"))

    def test_a_redirect_to_http_is_refused(self, serve, serve_tls, fetcher, trust):
        """No redirect leads out of TLS, even where http is allowed."""
        plain = serve(ok())
        server = serve_tls("a.test", moved(plain.url("b.test")))
        with pytest.raises(UrlRefused):
            fetcher(server, plain, tls=trust).fetch(server.url("a.test", scheme="https"))

        assert plain.requests == []

    def test_a_drip_ends_with_the_deadline(self, serve_tls, fetcher, trust):
        """Time is kept inside TLS as well."""
        server = serve_tls("a.test", ok())
        server.script(server.drip(OK, byte=b"X", pause_s=0.02))
        dripping = fetcher(server, tls=trust, timeout_s=0.4)

        assert elapsed_s(dripping.fetch, server.url("a.test", scheme="https")) < 0.9
