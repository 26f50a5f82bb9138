"""A server of pictures that fails as its paths say: `/PLAN/NUMBER/PICTURE`.

Every path is asked for by one item, so a plan may fail its first answer alone. How often each plan was
asked is counted.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from tests.chaos.outcomes import Bad
from tests.chaos.worker import PICTURES


if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ONCE = "-once"
GOOD_PLANS = ("ok", "busy-once", "reset-once", "moved-once")
DRIPPING = "drip"  # slow for whoever waits, so there are few of it
FAILING_PLANS = {
    "missing": Bad("DOWNLOAD_ERROR"),
    "busy": Bad("DOWNLOAD_ERROR", retryable=True),
    "reset": Bad("DOWNLOAD_ERROR", retryable=True),
    DRIPPING: Bad("DOWNLOAD_ERROR", retryable=True),
    "empty": Bad("DOWNLOAD_ERROR"),
    "packed": Bad("DOWNLOAD_ERROR"),
    "page": Bad("DECODE_ERROR"),
    "huge": Bad("IMAGE_TOO_LARGE"),
    "private": Bad("URL_REFUSED"),
}
HUGE_BYTES = 11 << 20  # the worker's limit is 10 MiB
DRIP_S = 0.1


class ImageServer:
    """Answers with *pictures*, by name, as the plan of each path says; `asked` counts the plans."""

    def __init__(self, pictures: Mapping[str, bytes]) -> None:
        self.port = 0
        self.asked: Counter[str] = Counter()
        self._pictures = pictures
        self._seen: set[str] = set()

    def url(self, plan: str, number: int, picture: str) -> str:
        """Return the URL of *picture* under *plan*; *number* makes it one of a kind."""
        return f"http://{PICTURES}:{self.port}/{plan}/{number}/{picture}"

    @contextmanager
    def running(self) -> Iterator[ImageServer]:
        """Serve from a thread until the block ends."""
        loop = asyncio.new_event_loop()
        server = loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=256))
        self.port = server.sockets[0].getsockname()[1]
        thread = threading.Thread(target=loop.run_forever, name="images", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(_end(server), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):  # the worker may be killed meanwhile
            request = await reader.readuntil(b"\r\n\r\n")
            path = request.split(b" ", 2)[1].decode()
            _, plan, _, name = path.split("/")
            self.asked[plan] += 1
            if plan.endswith(ONCE):
                plan = "ok" if path in self._seen else plan.removesuffix(ONCE)
                self._seen.add(path)
            await _answer(writer, plan, path, self._pictures[name])
        writer.close()


async def _answer(writer: asyncio.StreamWriter, plan: str, path: str, picture: bytes) -> None:
    if plan == "reset":
        await _send(writer, _ok(picture)[: -len(picture) // 2])
        writer.transport.abort()
    elif plan == DRIPPING:
        await _send(writer, _ok(picture)[: -len(picture)])
        while not writer.is_closing():
            await asyncio.sleep(DRIP_S)
            await _send(writer, b"x")
    else:
        await _send(writer, _answers(path, picture)[plan])


def _answers(path: str, picture: bytes) -> dict[str, bytes]:
    """Return the whole answer of each plan that gives one."""
    return {
        "ok": _ok(picture),
        "busy": _http(503, b"Content-Length: 0"),
        "moved": _http(302, b"Location: " + path.encode(), b"Content-Length: 0"),
        "missing": _http(404, b"Content-Length: 0"),
        "empty": _ok(b""),
        "packed": _http(200, b"Content-Length: %d" % len(picture), b"Content-Encoding: gzip", body=picture),
        "page": _ok(b"<html></html>"),
        "huge": _http(200, b"Content-Length: %d" % HUGE_BYTES),
        "private": _http(302, b"Location: http://private.example/", b"Content-Length: 0"),
    }


def _ok(body: bytes) -> bytes:
    return _http(200, b"Content-Length: %d" % len(body), body=body)


def _http(status: int, *headers: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join((b"HTTP/1.1 %d Whatever" % status, *headers, b"", body))


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def _end(server: asyncio.Server) -> None:
    server.close()
    open_tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in open_tasks:
        task.cancel()
    await asyncio.gather(*open_tasks, return_exceptions=True)
