"""Where a download may lead: lookups, redirects and certificates. Addresses have a table of their own."""

from __future__ import annotations

import pytest

from embedding.errors import DownloadError, UrlRefused
from embedding.intake.fetch import system_addresses
from tests.intake.servers import HERE, OK, Resolver, answer, elapsed_s, moved, ok


class TestLookups:
    def test_a_name_is_looked_up_once(self, serve, fetcher):
        """A name that answers differently the second time is not asked a second time, whatever happens."""
        server = serve(answer(503), moved("/again"), ok(b"picture"))
        resolver = Resolver([HERE], ["169.254.169.254"])

        assert fetcher(server, resolver=resolver).fetch(server.url("a.test")) == b"picture"
        assert resolver.asked == ["a.test"]

    def test_the_next_address_is_tried(self, serve, fetcher):
        """Where one address does not answer, the next one may."""
        server = serve(ok(b"picture"))
        patient = fetcher(server, resolver=Resolver(["::1", HERE]), is_allowed=lambda _address: True)

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

    @pytest.mark.parametrize("count", [2, 3])
    def test_end_where_the_limit_says(self, serve, fetcher, count):
        """As many redirects as allowed pass."""
        server = serve(*[moved("/next")] * count, ok(b"picture"))

        assert fetcher(server, max_redirects=3).fetch(server.url("a.test")) == b"picture"

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
