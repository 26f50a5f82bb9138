"""What a connection may cost: heads bounded in bytes and time, one request at a time, bodies that end."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager

import pytest
import uvicorn

from embedding.serve.http.app import make_app
from embedding.serve.http.protocol import BoundedProtocol
from tests.serve.http.local import local_service


PING = b"GET /ping HTTP/1.1\r\nhost: a\r\n\r\n"
TEXT = b"POST /v1/embed/text HTTP/1.1\r\nhost: a\r\n"
SHORT_S, LONG_S = 0.3, 30.0


class Impatient(BoundedProtocol):
    """As it is, but for its patience."""

    head_timeout_s = SHORT_S
    lingering_s = SHORT_S


@pytest.fixture(scope="module")
def port():
    """Return the port of a service over a fake model, whose protocol is impatient."""
    config = uvicorn.Config(
        make_app(local_service()), http=Impatient, ws="none", log_config=None, timeout_keep_alive=int(LONG_S)
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


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


def test_connection_that_is_kept(port):
    """Between two requests it may rest, for longer than a head may take."""
    with connected(port) as connection:
        for _ in range(2):
            connection.sendall(PING)
            assert connection.recv(1000).split()[1] == b"200"
            time.sleep(SHORT_S + 0.2)


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

    def test_body_that_waits_to_be_asked_for(self, port):
        """Who asked whether to send it at all is answered and cut off, for nothing tells if it will come."""
        with connected(port) as connection:
            connection.sendall(TEXT + b"content-length: 9999999\r\nexpect: 100-continue\r\n\r\n")
            told, took_s = until_closed(connection)
        assert told.startswith(b"HTTP/1.1 413")
        assert took_s < SHORT_S
