"""What a connection may cost: heads bounded in bytes and time, one request at a time, bodies that end."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager

import pytest
import uvicorn
from starlette.responses import Response

from embedding.serve.http.app import make_app
from embedding.serve.http.protocol import BoundedProtocol
from tests.serve.http.local import local_service


PING = b"GET /ping HTTP/1.1\r\nhost: a\r\n\r\n"
TEXT = b"POST /v1/embed/text HTTP/1.1\r\nhost: a\r\n"
SHORT_S, KEEP_S = 0.3, 1


class Impatient(BoundedProtocol):
    """As it is, but for its patience."""

    head_timeout_s = lingering_s = send_timeout_s = SHORT_S


@contextmanager
def served(app):
    """Yield the port of *app* behind an impatient protocol."""
    config = uvicorn.Config(app, http=Impatient, ws="none", log_config=None, timeout_keep_alive=KEEP_S)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def port():
    """Return the port of a service over a fake model."""
    with served(make_app(local_service())) as port:
        yield port


@contextmanager
def connected(port):
    """Yield a connection to the service."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(5)
        yield connection


def head(size):
    """Return a head of exactly *size* bytes."""
    empty = b"GET /ping HTTP/1.1\r\nhost: a\r\nx: \r\n\r\n"
    return empty.replace(b"x: ", b"x: " + b"y" * (size - len(empty)))


def until_closed(connection):
    """Return all that comes until the service closes, and after how many seconds it does."""
    started_s, told = time.monotonic(), b""
    try:
        while more := connection.recv(65_536):
            told += more
    except ConnectionResetError:
        pass
    return told, time.monotonic() - started_s


@pytest.mark.parametrize("piece", [1000, 100_000])
@pytest.mark.parametrize(("size", "status"), [(65_535, b"200"), (65_536, b"200"), (65_537, b"431")])
def test_bytes_of_a_head(port, size, status, piece):
    """A head has 64 KiB at most, in whatever pieces it comes."""
    with connected(port) as connection:
        sent = head(size)
        for start in range(0, size, piece):
            connection.sendall(sent[start : start + piece])
        assert connection.recv(100).split()[1] == status
    assert len(sent) == size


def test_head_and_body_in_one_piece(port):
    """What follows a head is no part of it."""
    body = b'{"text": "' + b"a" * 99_000 + b'"}'
    with connected(port) as connection:
        connection.sendall(TEXT + b"content-length: %d\r\n\r\n" % len(body) + body)
        assert connection.recv(100).split()[1] == b"200"


@pytest.mark.parametrize("sent", [b"", b"GET /pi", PING + b"GET /pi"])
def test_head_that_does_not_come(port, sent):
    """A connection is closed when a head, the first or the next, is not whole in time."""
    with connected(port) as connection:
        connection.sendall(sent)
        _, took_s = until_closed(connection)
    assert SHORT_S - 0.1 < took_s < 3


@pytest.mark.parametrize("cut", [*range(-6, 0)])
def test_head_that_ends_in_two_pieces(port, cut):
    """Wherever a head is cut, what follows it is no part of it."""
    body = b'{"text": "' + b"a" * 99_000 + b'"}'
    sent = TEXT + b"content-length: %d\r\n\r\n" % len(body)
    with connected(port) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(sent[:cut])
        time.sleep(0.05)
        connection.sendall(sent[cut:] + body)
        assert connection.recv(100).split()[1] == b"200"


def test_trailers(port):
    """Fields after a body are no headers, and endless ones end the connection."""
    chunked = TEXT + b"transfer-encoding: chunked\r\n\r\nd\r\n" + b'{"text": "a"}' + b"\r\n0\r\n"
    with connected(port) as connection:
        connection.sendall(chunked + b"content-type: multipart/form-data\r\n\r\n")
        assert connection.recv(100).split()[1] == b"200"
    with connected(port) as connection:
        connection.sendall(chunked)
        assert is_cut_off(connection, b"a:b\r\n" * 1000, times=10_000)


def is_cut_off(connection, data, *, times):
    """Return whether the service closes before *data* has been sent so often."""
    try:
        for _ in range(times):
            connection.sendall(data)
    except ConnectionError:
        return True
    return False


def test_answer_that_is_not_read():
    """Who asks for much and reads nothing is cut off."""
    large = Response(bytes(50_000_000))  # more than the system's buffers hold
    with served(large) as port, connected(port) as connection:
        connection.sendall(PING)
        time.sleep(SHORT_S + 1)
        told, _ = until_closed(connection)
    assert 0 < len(told) < 50_000_000


def test_connection_that_is_kept(port):
    """Between two requests it may rest, for longer than a head may take."""
    with connected(port) as connection:
        for _ in range(2):
            connection.sendall(PING)
            assert connection.recv(1000).split()[1] == b"200"
            time.sleep(SHORT_S + 0.2)


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"\r\n\r\n"])
def test_connection_that_rests_for_long(port, sent):
    """It is closed when it has rested for too long, whatever line ends came meanwhile."""
    with connected(port) as connection:
        connection.sendall(PING)
        assert connection.recv(1000).split()[1] == b"200"
        connection.sendall(sent)
        _, took_s = until_closed(connection)
    assert KEEP_S - 0.5 < took_s < KEEP_S + 2


def test_requests_that_do_not_wait(port):
    """Whoever sends the next request before the answer to the last is cut off."""
    body = b'{"text": "a"}'
    request = TEXT + b"content-length: %d\r\n\r\n" % len(body) + body
    with connected(port) as connection:
        connection.sendall(request * 1000)
        told, took_s = until_closed(connection)
    assert told.count(b"HTTP/1.1 200") <= 1
    assert took_s < 3


class TestAnswerBeforeTheBody:
    def test_body_that_never_ends(self, port):
        """Who goes on sending after a refusal is cut off, after some time to read it."""
        with connected(port) as connection:
            connection.sendall(TEXT + b"content-length: 999999999\r\n\r\n" + b"x" * 1000)
            told, took_s = until_closed(connection)
        assert told.startswith(b"HTTP/1.1 413")
        assert SHORT_S - 0.1 < took_s < 3

    def test_body_that_ends(self, port):
        """Who sends it to its end may go on with another request."""
        with connected(port) as connection:
            connection.sendall(TEXT + b"content-length: 1000001\r\n\r\n" + bytes(1_000_001))
            assert connection.recv(65_536).startswith(b"HTTP/1.1 413")
            time.sleep(SHORT_S + 0.2)
            connection.sendall(PING)
            assert connection.recv(1000).split()[1] == b"200"

    def test_caller_who_will_close(self, port):
        """Who asked for the connection to be closed gets the answer all the same, and may send all of it."""
        with connected(port) as connection:
            connection.sendall(
                TEXT + b"connection: close\r\ncontent-length: 9000000\r\n\r\n" + bytes(9_000_000)
            )
            told, took_s = until_closed(connection)
        assert told.startswith(b"HTTP/1.1 413")
        assert took_s < 3

    def test_last_byte_after_the_answer(self, port):
        """A body that ends after its answer leaves a connection that rests, and is closed in time."""
        with connected(port) as connection:
            connection.sendall(TEXT + b"content-length: 1000001\r\n\r\n" + bytes(1_000_000))
            assert connection.recv(65_536).startswith(b"HTTP/1.1 413")
            connection.sendall(b"x")
            _, took_s = until_closed(connection)
        assert took_s < 3

    def test_body_that_waits_to_be_asked_for(self, port):
        """Who asked whether to send it at all is answered and cut off, for nothing tells if it will come."""
        with connected(port) as connection:
            connection.sendall(TEXT + b"content-length: 9999999\r\nexpect: 100-continue\r\n\r\n")
            told, took_s = until_closed(connection)
        assert told.startswith(b"HTTP/1.1 413")
        assert took_s < SHORT_S
