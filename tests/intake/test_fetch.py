"""How long a download may take, how much it may bring, when it is tried again, and what is told of it."""

from __future__ import annotations

import gzip
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from embedding.errors import DownloadError, ImageTooLarge, UrlRefused
from embedding.intake.fetch import UNREACHABLE
from tests.intake.servers import HERE, OK, Resolver, answer, elapsed_s, moved, ok, pause, reset


class TestPlainDownload:
    def test_returns_the_body(self, serve, fetcher):
        """A 200 with a length gives its body."""
        server = serve(ok(b"picture"))

        assert fetcher(server).fetch(server.url("a.test")) == b"picture"

    def test_asks_as_the_url_says(self, serve, fetcher):
        """The request names host, port, path and query of the URL, and asks for no compression or cookies."""
        server = serve(ok())
        fetcher(server).fetch(server.url("a.test", "/p%20q?x=1#y"))
        head, *headers = server.requests[0].split("\r\n")

        assert head == "GET /p%20q?x=1 HTTP/1.1"
        assert f"Host: a.test:{server.port}" in headers
        assert "Accept-Encoding: identity" in headers
        assert not any(line.lower().startswith(("cookie", "authorization")) for line in headers)

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(OK + b"\r\npicture", id="until the end"),
            pytest.param(OK + b"Content-Length: nonsense\r\n\r\npicture", id="length of letters"),
            pytest.param(OK + b"Content-Length: -1\r\n\r\npicture", id="negative length"),
            pytest.param(OK + b"Content-Length: 7\r\n\r\npicture and more", id="length too short"),
            pytest.param(
                OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\npic\r\n4;x\r\nture\r\n0\r\n\r\n", id="chunked"
            ),
        ],
    )
    def test_reads_every_framing(self, serve, fetcher, body):
        """Length, chunks, or the end of the connection frame a body; a wrong length does no harm."""
        server = serve(body)

        assert fetcher(server).fetch(server.url("a.test")) == b"picture"

    def test_is_shared_between_threads(self, serve, fetcher):
        """One fetcher serves many threads at once."""
        server = serve(pause(0.05, ok(b"picture")))
        shared = fetcher(server)
        with ThreadPoolExecutor(16) as threads:
            bodies = list(threads.map(shared.fetch, [server.url(f"host{n}.test") for n in range(32)]))

        assert bodies == [b"picture"] * 32

    def test_ignores_proxies_of_the_environment(self, serve, fetcher, monkeypatch):
        """No proxy is asked, whatever the environment says."""
        proxy, server = serve(ok(b"proxy")), serve(ok(b"picture"))
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://{HERE}:{proxy.port}")

        assert fetcher(server, proxy).fetch(server.url("a.test")) == b"picture"
        assert proxy.requests == []


class TestSize:
    @pytest.mark.parametrize("framing", ["length", "end"])
    def test_ends_at_the_limit(self, serve, fetcher, framing):
        """A body of as many bytes as allowed passes; one more does not, announced or not."""
        for size, passes in ((999, True), (1000, True), (1001, False)):
            body = bytes(size)
            server = serve(ok(body) if framing == "length" else OK + b"\r\n" + body)
            if passes:
                assert fetcher(server, max_bytes=1000).fetch(server.url("a.test")) == body
            else:
                with pytest.raises(ImageTooLarge, match="1000"):
                    fetcher(server, max_bytes=1000).fetch(server.url("a.test"))

    def test_an_announced_excess_is_not_read(self, serve, fetcher):
        """A length above the limit is believed at once."""
        server = serve()
        server.script(server.drip(OK + b"Content-Length: 99999999999\r\n\r\n"))
        with pytest.raises(ImageTooLarge, match="99999999999 bytes; the limit is 10485760"):
            fetcher(server).fetch(server.url("a.test"))

    def test_an_endless_body_ends(self, serve, fetcher):
        """A body without end is cut at the limit."""
        server = serve()
        server.script(server.drip(OK + b"\r\n", byte=bytes(1 << 16), pause_s=0))
        with pytest.raises(ImageTooLarge):
            fetcher(server, max_bytes=1 << 20).fetch(server.url("a.test"))

    def test_a_compressed_body_is_refused(self, serve, fetcher):
        """A gzip bomb is refused unopened, since none was asked for."""
        server = serve(ok(gzip.compress(bytes(1 << 20)), b"Content-Encoding: gzip"))
        with pytest.raises(DownloadError, match="compressed"):
            fetcher(server).fetch(server.url("a.test"))

    def test_nothing_is_a_failure(self, serve, fetcher):
        """A 200 without a body is no image."""
        server = serve(ok(b""))
        with pytest.raises(DownloadError, match="nothing") as failure:
            fetcher(server).fetch(server.url("a.test"))

        assert not failure.value.retryable


class TestTime:
    @pytest.mark.parametrize(
        "first",
        [
            pytest.param(b"", id="status line"),
            pytest.param(OK + b"X: ", id="header"),
            pytest.param(OK + b"Content-Length: 100000\r\n\r\n", id="body"),
            pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n", id="chunk size"),
            pytest.param(b"HTTP/1.1 100 Continue\r\nX: ", id="interim header"),
        ],
    )
    def test_a_drip_ends_with_the_deadline(self, serve, fetcher, first):
        """A byte every 20 ms never falls silent, and still ends with the deadline, wherever it comes."""
        server = serve()
        server.script(server.drip(first, byte=b"1", pause_s=0.02))
        dripping = fetcher(server, timeout_s=0.4)

        assert 0.35 < elapsed_s(dripping.fetch, server.url("a.test")) < 0.9

    def test_silence_ends_sooner(self, serve, fetcher):
        """A server that says nothing is given up after the read timeout."""
        server = serve()
        server.script(server.silence)
        waiting = fetcher(server, read_timeout_s=0.1, max_attempts=1)

        assert elapsed_s(waiting.fetch, server.url("a.test")) < 0.6

    def test_a_silent_handshake_ends(self, serve, fetcher):
        """A server that accepts and never speaks TLS is given up after the connect timeout."""
        server = serve()
        server.script(server.silence)
        waiting = fetcher(server, connect_timeout_s=0.1, max_attempts=1)

        assert elapsed_s(waiting.fetch, server.url("a.test", scheme="https")) < 0.6

    def test_a_slow_lookup_ends(self, fetcher):
        """A resolver that does not come back is given up."""
        waiting = fetcher(resolver=lambda _host, _port: time.sleep(0.5), dns_timeout_s=0.1, max_attempts=1)

        assert elapsed_s(waiting.fetch, "https://a.test/") < 0.4

    def test_nothing_begins_after_the_deadline(self, serve, fetcher):
        """A deadline that has passed is one failure more, and nobody is asked."""
        server = serve(ok())
        late = fetcher(server, timeout_s=1e-9)

        assert elapsed_s(late.fetch, server.url("a.test")) < 0.1
        assert server.requests == []

    def test_the_deadline_encloses_retries_and_redirects(self, serve, fetcher):
        """Slow answers, one after another, share one deadline."""
        server = serve(pause(0.15, moved("/b")), pause(0.15, answer(503)), pause(0.15, moved("/c")))
        slow = fetcher(server, timeout_s=0.5)

        assert elapsed_s(slow.fetch, server.url("a.test")) < 0.9


class TestRetries:
    @pytest.mark.parametrize(
        "first",
        [
            pytest.param(answer(429), id="429"),
            pytest.param(answer(500), id="500"),
            pytest.param(answer(503, b"Retry-After: 0"), id="503"),
            pytest.param(reset, id="reset"),
            pytest.param(b"", id="closed"),
            pytest.param(OK + b"Content-Length: 10\r\n\r\nshort", id="cut short"),
            pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nsh", id="cut short in a chunk"),
        ],
    )
    def test_cure_what_passes(self, serve, fetcher, first):
        """Overload, resets and bodies cut short are tried again."""
        server = serve(first, ok(b"picture"))

        assert fetcher(server).fetch(server.url("a.test")) == b"picture"
        assert len(server.requests) == 2

    def test_end_after_three_attempts(self, serve, fetcher):
        """The third failure is told, and that a later try may help."""
        server = serve(answer(502))
        with pytest.raises(DownloadError, match="answered 502") as failure:
            fetcher(server).fetch(server.url("a.test"))

        assert failure.value.retryable
        assert len(server.requests) == 3

    @pytest.mark.parametrize("status", [204, 206, 400, 401, 403, 404, 410])
    def test_spare_what_stays(self, serve, fetcher, status):
        """Any other status is told at once, for good."""
        server = serve(answer(status))
        with pytest.raises(DownloadError, match=f"answered {status}") as failure:
            fetcher(server).fetch(server.url("a.test"))

        assert not failure.value.retryable
        assert len(server.requests) == 1

    @pytest.mark.parametrize(
        "nonsense", [b"SSH-2.0-OpenSSH\r\n", OK + b"X: y\r\n" * 200 + b"\r\n", b"HTTP/1.1 abc\r\n\r\n"]
    )
    def test_spare_what_is_not_http(self, serve, fetcher, nonsense):
        """A server that does not speak HTTP will not learn it."""
        server = serve(nonsense)
        with pytest.raises(DownloadError, match="not HTTP") as failure:
            fetcher(server).fetch(server.url("a.test"))

        assert not failure.value.retryable

    def test_wait_as_the_server_asks(self, serve, fetcher):
        """Retry-After is honoured."""
        server = serve(answer(503, b"Retry-After: 1"), ok(b"picture"))
        started_s = time.monotonic()

        assert fetcher(server).fetch(server.url("a.test")) == b"picture"
        assert time.monotonic() - started_s >= 1

    @pytest.mark.parametrize("header", [b"Retry-After: 6", b"Retry-After: 999999999"])
    def test_give_up_where_the_server_asks_for_too_much(self, serve, fetcher, header):
        """Longer than five seconds is left to the caller."""
        server = serve(answer(429, header))

        assert elapsed_s(fetcher(server).fetch, server.url("a.test")) < 1
        assert len(server.requests) == 1

    def test_give_up_where_the_deadline_comes_first(self, serve, fetcher):
        """A pause that would outlast the deadline is not begun."""
        server = serve(answer(503, b"Retry-After: 3"))

        assert elapsed_s(fetcher(server, timeout_s=1).fetch, server.url("a.test")) < 0.9

    @pytest.mark.parametrize("header", [b"Retry-After: tomorrow", b"Retry-After: -1", b"Retry-After: \xb2"])
    def test_nonsense_is_no_wish(self, serve, fetcher, header):
        """A Retry-After that is no number of seconds counts as none."""
        server = serve(answer(503, header), ok(b"picture"))

        assert fetcher(server).fetch(server.url("a.test")) == b"picture"

    def test_refusals_are_not_retried(self, serve, fetcher):
        """A refusal is final."""
        server = serve(moved("ftp://b.test/"))
        with pytest.raises(UrlRefused):
            fetcher(server).fetch(server.url("a.test"))

        assert len(server.requests) == 1


class TestMessages:
    def test_failures_to_reach_a_host_look_alike(self, serve, fetcher):
        """No route, no name, no answer, a reset and silence have one message."""
        closed = serve(ok())
        closed.close()
        silent = serve()
        silent.script(silent.silence)
        resetting = serve(reset)
        lost = socket.gaierror(socket.EAI_AGAIN, "try again")
        failures = [
            (fetcher(closed), closed.url("a.test")),
            (fetcher(silent, read_timeout_s=0.05), silent.url("a.test")),
            (fetcher(resetting), resetting.url("a.test")),
            (fetcher(resolver=Resolver(lost)), "https://a.test/"),
        ]
        for fetching, url in failures:
            with pytest.raises(DownloadError) as failure:
                fetching.fetch(url)

            assert failure.value.message == UNREACHABLE
            assert failure.value.retryable

    def test_a_name_that_does_not_exist_is_final(self, fetcher):
        """A name without an address is not asked for again, in the same words."""
        resolver = Resolver(socket.gaierror(socket.EAI_NONAME, "unknown"))
        with pytest.raises(DownloadError) as failure:
            fetcher(resolver=resolver).fetch("https://a.test/")

        assert failure.value.message == UNREACHABLE
        assert not failure.value.retryable
        assert resolver.asked == ["a.test"]
