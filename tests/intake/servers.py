"""Servers on the loopback that say exactly what a test wants them to say, byte for byte."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

import pytest

from bench.urls_worker import HERE
from embedding.errors import DownloadError


OK = b"HTTP/1.1 200 OK\r\n"


def ok(body=b"image", *headers):
    """Return a complete answer."""
    return answer(200, f"Content-Length: {len(body)}".encode(), *headers, body=body)


def answer(status, *headers, body=b""):
    """Return an answer with *headers* as given and nothing else."""
    return b"\r\n".join((b"HTTP/1.1 %d Whatever" % status, *headers, b"", body))


def moved(location, status=302):
    """Return a redirect."""
    return answer(status, b"Location: " + location.encode("latin-1"), b"Content-Length: 0")


class Resolver:
    """Answers every name with the next of *answers*, the last one for ever, and remembers what was asked."""

    def __init__(self, *answers) -> None:
        self.answers = list(answers) or [[HERE]]
        self.asked = []

    def __call__(self, host, _port) -> list[str]:
        self.asked.append(host)
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(found, Exception):
            raise found
        return found


class Server:
    """Answers each request with the next of *answers*, the last one for ever.

    An answer is bytes to send, or a function of the connection. `requests` holds what was asked, on how many
    `connections`: one for each, or as few as the client likes where the server *keeps* them open.
    """

    def __init__(self, *answers, tls=None, keeps=False) -> None:
        self._answers = list(answers)
        self._tls = tls
        self._keeps = keeps
        self._open = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.requests = []
        self.server_names = []
        if tls:
            tls.sni_callback = lambda _socket, name, _context: self.server_names.append(name)
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def url(self, host, path="/image.png", scheme="http"):
        """Return a URL of this server under any name."""
        return f"{scheme}://{host}:{self.port}{path}"

    def close(self):
        """Stop, and wait for all threads."""
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()
        for thread in self._threads:
            thread.join()

    def hang_up(self):
        """End every connection."""
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def send_unasked(self, data):
        """Send *data* to whoever is connected."""
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.sendall(data)

    def drip(self, first, *, byte=b"x", pause_s=0.05):
        """Return an answer that begins with *first* and then never ends, a byte at a time."""

        def send(connection):
            connection.sendall(first)
            while not self._stopped.wait(pause_s):
                connection.sendall(byte)

        return send

    def silence(self, _connection):
        """Say nothing for as long as the test lasts."""
        self._stopped.wait(10)

    def script(self, *answers):
        """Replace what is answered; for answers that need the server itself."""
        self._answers = list(answers)

    def _accept(self):
        while not self._stopped.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection):
        with contextlib.suppress(OSError), connection:
            connection.settimeout(5)
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection:
                self._open.append(connection)
                while request := _read_request(connection):
                    self.requests.append(request)
                    reply = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
                    if isinstance(reply, bytes):
                        connection.sendall(reply)
                    else:
                        reply(connection)
                    if not self._keeps:
                        return


def elapsed_s(function, *args):
    """Return how long *function* takes to raise DownloadError."""
    started_s = time.monotonic()
    with pytest.raises(DownloadError):
        function(*args)
    return time.monotonic() - started_s


def reset(connection):
    """Break the connection off instead of closing it."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def hang_up(connection):
    """Close instead of answering."""
    connection.shutdown(socket.SHUT_RDWR)


def last(reply):
    """Return an answer after which the server closes, though it keeps connections otherwise."""

    def send(connection):
        connection.sendall(reply)
        connection.shutdown(socket.SHUT_RDWR)

    return send


def in_two(first, second):
    """Return an answer in two pieces, which TLS sends as two records."""

    def send(connection):
        connection.sendall(first)
        time.sleep(0.01)
        connection.sendall(second)

    return send


def pause(seconds, then):
    """Return an answer that comes late."""

    def send(connection):
        time.sleep(seconds)
        connection.sendall(then)

    return send


def _read_request(connection):
    request = b""
    while b"\r\n\r\n" not in request:
        received = connection.recv(65536)
        if not received:
            break
        request += received
    return request.decode("latin-1")
