"""Callers over HTTP/1.1 on loopback: each has one connection, kept open, and one request in flight.

They share this machine with the server they measure, so they are cheap: requests are serialised beforehand,
answers are parsed by httptools and read by nobody here. What they cost is measured and told.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final, cast

import httptools
import uvloop

from bench.figures import rate


if TYPE_CHECKING:
    from collections.abc import Sequence

HOST: Final = "127.0.0.1"
ANSWER_S: Final = 60.0  # an answer that takes longer is one that hangs
OK: Final = 200
TOO_MANY: Final = 429


@dataclass(frozen=True, slots=True)
class Answer:
    """One request from end to end: its index, seconds of `time.perf_counter()`, and what came back."""

    request: int
    started_s: float
    ended_s: float
    status: int
    raw: bytes

    @property
    def took_ms(self) -> float:
        """How long its caller waited."""
        return (self.ended_s - self.started_s) * 1e3


@dataclass(frozen=True, slots=True)
class Load:
    """What callers saw, in the order of the answers' ends, and the CPU that they took themselves."""

    answers: tuple[Answer, ...]
    cpu_s: float
    started_s: float

    def per_s(self, duration_s: float) -> float:
        """Return the answers a second in the first *duration_s*."""
        ended_s = (answer.ended_s for answer in self.answers)
        return rate([each for each in ended_s if each <= self.started_s + duration_s])


def post(path: str, body: bytes, content_type: str = "application/json") -> bytes:
    """Return the bytes of a request."""
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {content_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def image_requests(files: Sequence[bytes]) -> list[bytes]:
    """Return a request for each of *files*, in base64."""
    return [
        post("/v1/embed/image", json.dumps({"image_base64": base64.b64encode(file).decode()}).encode())
        for file in files
    ]


def drive(port: int, requests: Sequence[bytes], *, callers: int, duration_s: float) -> Load:
    """Let *callers* send *requests* in turn for *duration_s*; return when all have been answered.

    Who is told to come again waits for as long as Retry-After says. Raises TimeoutError if an answer takes
    60 seconds, and ConnectionError if a connection ends before its answer.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_drive(port, requests, callers, duration_s))


def ask(port: int, requests: Sequence[bytes], *, callers: int, duration_s: float) -> Load:
    """Do what `drive` does; raise RuntimeError if an answer is not 200."""
    load = drive(port, requests, callers=callers, duration_s=duration_s)
    for answer in load.answers:
        if answer.status != OK:
            raise RuntimeError(f"it answered {answer.status}: {answer.raw[:200]!r}")
    return load


async def _drive(port: int, requests: Sequence[bytes], callers: int, duration_s: float) -> Load:
    numbers, answers = count(), list[Answer]()
    started_cpu_s, begun_s = time.thread_time(), time.perf_counter()

    async def call() -> None:
        connection = await Connection.open(port)
        while (started_s := time.perf_counter()) < begun_s + duration_s:
            if connection.is_over:
                connection = await Connection.open(port)
            request = next(numbers) % len(requests)
            async with asyncio.timeout(ANSWER_S):
                raw = await connection.ask(requests[request])
            answers.append(Answer(request, started_s, time.perf_counter(), connection.status, raw))
            if connection.status == TOO_MANY:
                await asyncio.sleep(connection.retry_after_s)
        connection.close()

    await asyncio.gather(*(call() for _ in range(callers)))
    return Load(tuple(answers), time.thread_time() - started_cpu_s, begun_s)


class Connection(asyncio.Protocol):
    """One connection. `status` and `retry_after_s` are the last answer's."""

    def __init__(self) -> None:
        self.is_over = False
        self.status = 0
        self.retry_after_s = 0.0
        self._body: list[bytes] = []

    @classmethod
    async def open(cls, port: int) -> Connection:
        """Return a connection to *port*."""
        _, connection = await asyncio.get_running_loop().create_connection(cls, HOST, port)
        return connection

    async def ask(self, request: bytes) -> bytes:
        """Send *request* and return the body of its answer."""
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._body, self.retry_after_s = [], 0.0
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """End the connection."""
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep *transport* (asyncio's)."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse *data* (asyncio's)."""
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request that is open (asyncio's)."""
        self.is_over = True
        if hasattr(self, "_answer") and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("closed before the answer"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Look for what is told to callers (httptools's)."""
        if name.lower() == b"retry-after":
            self.retry_after_s = float(value)

    def on_body(self, body: bytes) -> None:
        """Keep *body* (httptools's)."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Give the answer to who waits for it (httptools's)."""
        self.status = self._parser.get_status_code()
        self.is_over = not self._parser.should_keep_alive()
        if not self._answer.done():
            self._answer.set_result(b"".join(self._body))
