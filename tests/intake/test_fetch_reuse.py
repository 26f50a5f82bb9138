"""When a connection serves another download, and that it never brings another's answer."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from embedding.errors import DownloadError, UrlRefused
from tests.intake.servers import (
    HERE,
    OK,
    Resolver,
    answer,
    elapsed_s,
    hang_up,
    in_two,
    last,
    moved,
    ok,
    pause,
    reset,
)


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n7\r\npicture\r\n0\r\n"
POISON = ok(b"poison")

CLEAN = {
    "length": ok(b"picture"),
    "chunks": CHUNKED + b"\r\n",
    "chunks with a trailer": CHUNKED + b"X: y\r\n\r\n",
    "a large body": ok(bytes(300_000)),
    "an early hint": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ok(b"picture"),
    "two interim answers": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + ok(b"picture"),
    "keep-alive": ok(b"picture", b"Connection: keep-alive"),
}
UNCLEAN = {
    "asks to close": ok(b"picture", b"Connection: close"),
    "asks to close among other things": ok(b"picture", b"Connection: x", b"Connection: Y, Close"),
    "HTTP/1.0": ok(b"picture", b"Connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "until the end": last(OK + b"\r\npicture"),
    "two lengths": ok(b"picture", b"Content-Length: 9"),
    "two equal lengths": ok(b"picture", b"Content-Length: 7"),
    "length with a sign": OK + b"Content-Length: +7\r\n\r\npicture",
    "length with an underscore": OK + b"Content-Length: 0_7\r\n\r\npicture",
    "length and chunks": CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 7\r\n\r\n", 1) + b"\r\n",
    "chunks twice": CHUNKED.replace(b"\r\n", b"\r\nTransfer-Encoding: chunked\r\n", 1) + b"\r\n",
    "more than said": ok(b"picture") + POISON,
    "much more than said": ok(b"picture") + POISON * 1000,
    "more than the chunks": CHUNKED + b"\r\n" + POISON,
    "more in the last read": in_two(OK + b"Content-Length: 8192\r\n\r\n", bytes(8192) + POISON),
    "more after a large body": ok(bytes(20_000)) + POISON,
}
FAILED = {
    "empty 404": (answer(404, b"Content-Length: 0"), 1),
    "small 404": (answer(404, b"Content-Length: 5", body=b"sorry"), 1),
    "404 until the end": (last(answer(404, body=b"sorry")), 2),
    "404 longer than said": (answer(404, b"Content-Length: 5", body=b"sorry" + POISON), 2),
    "404 shorter than said": (answer(404, b"Content-Length: 5", body=b"sor"), 2),
    "large 404": (answer(404, b"Content-Length: 100000", body=bytes(100_000)), 2),
    "204 with a body": (answer(204, b"Content-Length: 5") + POISON, 2),
    "204": (answer(204), 2),
    "304 with a length": (answer(304, b"Content-Length: 5"), 2),
    "101": (answer(101, b"Content-Length: 0"), 2),
    "nothing": (ok(b""), 1),
    "compressed": (ok(b"picture", b"Content-Encoding: gzip"), 2),
    "too large": (ok(bytes(400_001)), 2),
}


@pytest.fixture(params=["http", "https"])
def keep(request, serve, serve_tls, fetcher, trust):
    """Start a server for a.test that keeps connections, and make a fetcher for it; over http and TLS."""

    def start(*answers, **options):
        if request.param == "http":
            server = serve(*answers, keeps=True)
        else:
            server = serve_tls("a.test", *answers, keeps=True)
        made = fetcher(server, tls=trust, **{"max_bytes": 400_000, "max_attempts": 1, **options})
        return server, lambda: made.fetch(server.url("a.test", scheme=request.param))

    return start


class TestKept:
    @pytest.mark.parametrize("first", CLEAN.values(), ids=CLEAN)
    def test_after_a_clean_answer(self, keep, first):
        """An answer read to an end that is beyond doubt leaves its connection to the next download."""
        resolver = Resolver()
        server, fetch = keep(first, ok(b"second"), resolver=resolver)

        assert fetch() in {b"picture", bytes(300_000)}
        assert fetch() == b"second"
        assert (server.connections, len(resolver.asked)) == (1, 1)

    @pytest.mark.parametrize("first", UNCLEAN.values(), ids=UNCLEAN)
    def test_not_after_any_other(self, keep, first):
        """Where the end is in doubt, or something follows it, the next download has its own connection."""
        server, fetch = keep(first, ok(b"second"))

        assert fetch() in {b"picture", bytes(8192), bytes(20_000)}
        assert fetch() == b"second"
        assert server.connections == 2

    @pytest.mark.parametrize(("first", "connections"), FAILED.values(), ids=FAILED)
    def test_after_a_failure_only_if_it_was_read(self, keep, first, connections):
        """An error's body is read where it came with the head, else its connection is closed."""
        server, fetch = keep(first, ok(b"second"))
        with pytest.raises(Exception, match="image"):
            fetch()

        assert fetch() == b"second"
        assert server.connections == connections

    def test_between_the_hops_of_a_redirect(self, keep):
        """A redirect to the same place is followed on the same connection."""
        server, fetch = keep(moved("/b"), moved("/c"), ok(b"picture"))

        assert fetch() == b"picture"
        assert server.connections == 1

    def test_without_waiting_for_a_redirects_body(self, keep):
        """A redirect whose body does not come is followed at once, on another connection."""
        server, fetch = keep(answer(302, b"Location: /b", b"Content-Length: 9"), ok(b"picture"))
        started_s = time.monotonic()

        assert fetch() == b"picture"
        assert time.monotonic() - started_s < 0.5
        assert server.connections == 2

    def test_by_downloads_at_once_for_one_each(self, keep):
        """Eight downloads at once open eight connections at most, the next eight open none."""
        server, fetch = keep(pause(0.05, ok(b"picture")))
        with ThreadPoolExecutor(8) as threads:
            for _ in range(3):
                bodies = [future.result() for future in [threads.submit(fetch) for _ in range(8)]]
                assert bodies == [b"picture"] * 8

        assert server.connections <= 8

    def test_until_the_fetcher_is_closed(self, serve, fetcher):
        """Closing the fetcher closes what it kept, and it keeps nothing more."""
        server = serve(ok(b"picture"), keeps=True)
        made = fetcher(server)
        made.fetch(server.url("a.test"))
        made.close()
        server._threads[1].join(2)

        assert not server._threads[1].is_alive()


class TestPolicy:
    def test_hosts_never_share(self, serve, fetcher):
        """Two names of one address have a connection each."""
        server = serve(ok(b"picture"), keeps=True)
        made = fetcher(server)
        for name in ("a.test", "b.test", "a.test", HERE):
            made.fetch(server.url(name))

        assert server.connections == 3

    def test_the_address_is_judged_again(self, serve, fetcher):
        """A peer that is no longer allowed is looked up again, and refused."""
        allowed = {HERE}
        server = serve(ok(b"picture"), keeps=True)
        made = fetcher(server, is_allowed=allowed.__contains__)
        made.fetch(server.url("a.test"))
        allowed.clear()
        with pytest.raises(UrlRefused):
            made.fetch(server.url("a.test"))

        assert len(server.requests) == 1

    @pytest.mark.parametrize("url", ["http://u@a.test:{}/", "ftp://a.test:{}/", "http://a.test:{}/\\"])
    def test_the_url_is_judged_again(self, serve, fetcher, url):
        """A kept connection is not asked for a URL that is refused."""
        server = serve(ok(b"picture"), keeps=True)
        made = fetcher(server)
        made.fetch(server.url("a.test"))
        with pytest.raises(UrlRefused):
            made.fetch(url.format(server.port))

        assert len(server.requests) == 1


class TestUnasked:
    def test_bytes_on_an_idle_connection_are_never_an_answer(self, keep):
        """What a server sends before it is asked ends the connection: it would pass for the next answer."""
        server, fetch = keep(ok(b"picture"), ok(b"second"))
        fetch()
        server.send_unasked(POISON)
        time.sleep(0.05)

        assert fetch() == b"second"
        assert server.connections == 2


class TestLost:
    """A kept connection that turns out lost is replaced, and costs none of the attempts: here, of one."""

    def test_while_idle(self, keep):
        """One that the server has closed is seen before it is used."""
        server, fetch = keep(ok(b"picture"))
        fetch()
        server.hang_up()
        time.sleep(0.05)

        assert fetch() == b"picture"
        assert (server.connections, len(server.requests)) == (2, 2)

    @pytest.mark.parametrize("end", [hang_up, reset])
    def test_when_asked(self, keep, end):
        """One that the server closes or resets instead of answering is replaced by a new one, once."""

        def lose(connection):
            end(connection)
            connection.close()

        server, fetch = keep(ok(b"picture"), lose, ok(b"second"))
        fetch()

        assert fetch() == b"second"
        assert (server.connections, len(server.requests)) == (2, 3)

    def test_not_for_ever(self, keep):
        """A new connection that is closed without an answer is a failure."""
        server, fetch = keep(ok(b"picture"), hang_up)
        fetch()
        with pytest.raises(DownloadError, match="could not be reached") as failure:
            fetch()

        assert failure.value.retryable
        assert server.connections == 2

    @pytest.mark.parametrize("end", [hang_up, reset])
    def test_not_within_an_answer(self, keep, end):
        """A server that has begun to answer is not asked again for nothing."""

        def lose(connection):
            in_two(OK + b"Content-Length: 9\r\n\r\n", b"short")(connection)
            time.sleep(0.05)
            end(connection)
            connection.close()

        server, fetch = keep(ok(b"picture"), lose, ok(b"second"))
        fetch()
        with pytest.raises(DownloadError, match="could not be reached"):
            fetch()

        assert len(server.requests) == 2

    def test_not_in_silence(self, keep):
        """Silence on a kept connection is a timeout as on any other."""
        server, fetch = keep(read_timeout_s=0.1)
        server.script(ok(b"picture"), server.silence)
        fetch()

        assert elapsed_s(fetch) < 0.5
        assert server.connections == 1


class TestTime:
    def test_each_download_has_its_own_deadline(self, keep):
        """The deadline of the download that opened a connection does not bind the next."""
        server, fetch = keep(pause(0.3, ok(b"picture")), timeout_s=0.5)

        assert [fetch(), fetch()] == [b"picture"] * 2
        assert server.connections == 1

    def test_a_drip_on_a_kept_connection_ends(self, keep):
        """Time is kept on a kept connection as on a new one."""
        server, fetch = keep(timeout_s=0.4)
        server.script(ok(b"picture"), server.drip(OK + b"X: ", pause_s=0.02))
        fetch()

        assert 0.35 < elapsed_s(fetch) < 0.9
        assert server.connections == 1
