"""How much may come with a picture, and what becomes of an answer that is framed as no answer should be."""

from __future__ import annotations

import socket
import threading
from contextlib import closing, contextmanager, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding.errors import DownloadError, ImageTooLarge, WorkerError
from embedding.intake.fetch import Fetcher, FetchLimits
from tests.intake.servers import HERE, OK, Resolver, Server, answer, elapsed_s, ok


# What answers are made of, and what they should not be made of.
PIECES = [
    OK,
    b"HTTP/1.1 302 Found\r\n",
    b"HTTP/1.1 103 Early Hints\r\n",
    b"HTTP/1.1 503 Busy\r\n",
    b"HTTP/9 ",
    b"Content-Length: ",
    b"Content-Encoding: ",
    b"Transfer-Encoding: chunked\r\n",
    b"Location: ",
    b"http://a.test/",
    b"Retry-After: 0",
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b" ",
    b":",
    b"0",
    b"3",
    b"-1",
    b"9" * 30,
    b"9" * 5000,
    b"F" * 30,
    b"pic",
    b"3\r\npic\r\n",
    b"0\r\n\r\n",
]


def head_of(size):
    """Return a head of *size* bytes, of an answer with a body of 7."""
    lines = OK + b"Content-Length: 7\r\nX: %s\r\n\r\n"
    return lines % (b"y" * (size - len(lines) + 2))


class TestOverhead:
    @pytest.mark.parametrize(("size", "passes"), [(999, True), (1000, True), (1001, False)])
    def test_a_head_ends_at_the_limit(self, serve, fetcher, size, passes):
        """A head of as many bytes as allowed passes; one more does not, and is not asked for again."""
        server = serve(head_of(size) + b"picture")
        fetching = fetcher(server, max_overhead_bytes=1000)
        if passes:
            assert fetching.fetch(server.url("a.test")) == b"picture"
        else:
            with pytest.raises(DownloadError, match="too much beside it") as failure:
                fetching.fetch(server.url("a.test"))
            assert not failure.value.retryable
            assert len(server.requests) == 1

    @pytest.mark.parametrize(("extra", "passes"), [(-1, True), (0, True), (1, False)])
    def test_everything_ends_at_both_limits(self, serve, fetcher, extra, passes):
        """Head, sizes of chunks and trailers may have so many bytes more than a body may."""
        reply = OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"7\r\npicture\r\n0\r\nX: %s\r\n\r\n"
        server = serve(reply % (b"y" * (1000 + 500 - (len(reply) - 2) + extra)))
        fetching = fetcher(server, max_overhead_bytes=1000, max_bytes=500)
        if passes:
            assert fetching.fetch(server.url("a.test")) == b"picture"
        else:
            with pytest.raises(DownloadError, match="too much beside it"):
                fetching.fetch(server.url("a.test"))

    @pytest.mark.parametrize(
        ("first", "again"),
        [
            pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 99, id="continue"),
            pytest.param(b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 99, id="early hints"),
            pytest.param(OK + b"X: ", b"y" * 9999, id="header"),
            pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 999, id="trailers"),
            pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x" * 9999, id="chunk extension"),
            pytest.param(
                OK + b"Transfer-Encoding: chunked\r\n\r\n",
                b"1;%s\r\nx\r\n" % (b"x" * 999) * 9,
                id="thin chunks",
            ),
        ],
    )
    def test_floods_end_long_before_the_deadline(self, serve, fetcher, first, again):
        """Whatever comes without end at full speed is cut off, in a fraction of a second."""
        server = serve()
        server.script(server.drip(first, byte=again, pause_s=0))

        assert elapsed_s(fetcher(server, max_bytes=1 << 20).fetch, server.url("a.test")) < 2
        assert len(server.requests) == 1

    @pytest.mark.parametrize(("count", "passes"), [(97, True), (98, True), (99, False)])
    def test_headers_are_counted(self, serve, fetcher, count, passes):
        """A head has a hundred lines at most: the two that end and frame it, and 98 others."""
        server = serve(ok(b"picture", *[b"X: y"] * count))
        if passes:
            assert fetcher(server).fetch(server.url("a.test")) == b"picture"
        else:
            with pytest.raises(DownloadError, match="not HTTP"):
                fetcher(server).fetch(server.url("a.test"))


class TestFraming:
    @pytest.mark.parametrize("interim", [b"100 Continue", b"102 Processing", b"103 Early Hints", b"199 X"])
    def test_interim_answers_are_passed_over(self, serve, fetcher, interim):
        """What comes before the answer is not the answer."""
        server = serve(b"HTTP/1.1 " + interim + b"\r\nLink: x\r\n\r\n" + ok(b"picture"))

        assert fetcher(server).fetch(server.url("a.test")) == b"picture"

    def test_a_switch_of_protocols_is_a_failure(self, serve, fetcher):
        """Nobody asked for another protocol."""
        server = serve(answer(101) + ok(b"picture"))
        with pytest.raises(DownloadError, match="answered 101"):
            fetcher(server).fetch(server.url("a.test"))

    @pytest.mark.parametrize("size", [b"-1", b"-7", b"-0x7"])
    def test_a_chunk_of_negative_size_is_refused(self, serve, fetcher, size):
        """A size below nothing would mean everything to `http.client`."""
        server = serve()
        server.script(
            server.drip(OK + b"Transfer-Encoding: chunked\r\n\r\n" + size + b"\r\n", byte=bytes(9999))
        )
        with pytest.raises(DownloadError, match="not HTTP") as failure:
            fetcher(server).fetch(server.url("a.test"))

        assert not failure.value.retryable

    @pytest.mark.parametrize("size", [b"", b"x", b"7" * 5000, b"\xb2"])
    def test_a_chunk_of_no_size_is_a_failure(self, serve, fetcher, size):
        """A size that is no number, or one that nothing could hold, brings no picture."""
        server = serve(OK + b"Transfer-Encoding: chunked\r\n\r\n" + size + b"\r\npicture\r\n0\r\n\r\n")
        with pytest.raises((DownloadError, ImageTooLarge)):
            fetcher(server).fetch(server.url("a.test"))

    @pytest.mark.parametrize(
        "coding", [b"gzip, chunked", b"gzip", b"identity", b"chunked, chunked", b"chunked "]
    )
    def test_other_codings_are_refused(self, serve, fetcher, coding):
        """A transfer coding other than chunks was not asked for, and would be taken for the picture."""
        server = serve(OK + b"Transfer-Encoding: " + coding + b"\r\n\r\n7\r\npicture\r\n0\r\n\r\n")
        with pytest.raises(DownloadError, match="not HTTP"):
            fetcher(server).fetch(server.url("a.test"))

    @pytest.mark.parametrize("framing", ["length", "chunks"])
    def test_a_body_ends_at_the_limit(self, serve, fetcher, framing):
        """As many bytes as allowed pass, in one piece or in many; one more does not."""
        for size in (999, 1000, 1001):
            body = bytes(size)
            chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
            chunked = OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
            server = serve(ok(body) if framing == "length" else chunked)
            fetching = fetcher(server, max_bytes=1000)
            if size <= 1000:
                assert fetching.fetch(server.url("a.test")) == body
            else:
                with pytest.raises(ImageTooLarge):
                    fetching.fetch(server.url("a.test"))


class TestAnyAnswer:
    def test_is_a_picture_or_an_error(self, public_trust):
        """Whatever bytes a server sends, the caller has bytes or one of our errors, never another's."""
        with (
            closing(Server(b"")) as server,
            closing(
                Fetcher(
                    FetchLimits(allow_http=True, ports=frozenset({server.port}), max_attempts=1),
                    resolver=Resolver(),
                    is_allowed=HERE.__eq__,
                    tls=public_trust,
                )
            ) as fetching,
        ):

            @settings(max_examples=300, deadline=None)
            @given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=9), max_size=12).map(b"".join))
            def check(reply):
                server.script(reply)
                with suppress(WorkerError):
                    assert fetching.fetch(server.url("a.test"))

            check()


@contextmanager
def dripping(first):
    """Send *first* to the next client before it has asked for anything, then a byte every 20 ms."""
    stopped = threading.Event()
    with socket.create_server((HERE, 0)) as listener:

        def drip():
            connection, _ = listener.accept()
            with suppress(OSError), connection:
                connection.sendall(first)
                while not stopped.wait(0.02):
                    connection.sendall(b"\0")

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stopped.set()
            thread.join()


def test_a_dripping_handshake_ends(fetcher):
    """A server that sends its part of the TLS handshake byte by byte is given up in time."""
    with dripping(b"\x16\x03\x03\x40\x00") as port:
        waiting = fetcher(ports=frozenset({port}), connect_timeout_s=0.3, max_attempts=1)

        assert 0.25 < elapsed_s(waiting.fetch, f"https://a.test:{port}/") < 0.8
