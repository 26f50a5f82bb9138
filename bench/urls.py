"""One batch job of 16 URLs: how much of it is waiting for one thing after the other.

The server is in this process, answers 50 ms after it has been asked, speaks HTTP or TLS, and keeps
connections open, as image hosts do.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import tempfile
import threading
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trustme

from bench.figures import percentile
from bench.inputs import url_job
from bench.model import check_vector
from bench.report import Measure
from bench.serving import ours, serving


if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.plan import Plan
    from bench.report import Row
    from bench.serving import Serving

URLS: Final = Measure("urls_16", "a job of 16 URLs, at most 50 ms + forward of 16 + 60 ms", "ms")
URLS_TLS: Final = Measure("urls_16_tls", "the same over TLS", "ms")
MEASURES: Final = (URLS, URLS_TLS)

COUNT: Final = 16
ANSWER_S: Final = 0.050
ALLOWED_MS: Final = 60.0
HOST: Final = "pictures.example"


def measure(plan: Plan) -> list[Row]:
    """Return the rows of a job of URLs, without and with TLS."""
    forward_ms = plan.forward_median_ms("own_images_16_ms")
    limit_ms = ANSWER_S * 1e3 + forward_ms + ALLOWED_MS
    rows = []
    for measured, scheme in ((URLS, "http"), (URLS_TLS, "https")):
        if not plan.wants(measured.name):
            continue
        with ExitStack() as opened:
            folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
            tls = _certificate(folder / "authority.pem")
            pictures = plan.pictures[:COUNT]
            port = opened.enter_context(_server(pictures, tls if scheme == "https" else None))
            script = ("-m", "bench.urls_worker", str(port), str(folder / "authority.pem"))
            served = opened.enter_context(serving(ours(plan.folder, script=script, ALLOW_HTTP_URLS="1")))
            urls = [f"{scheme}://{HOST}:{port}/{number}.jpg" for number in range(COUNT)]
            took_ms = _job_ms(served, url_job(urls), plan)
        p50_ms, p95_ms = percentile(took_ms, 50), percentile(took_ms, 95)
        told = f"p50, p95 {p95_ms:.0f} of {len(took_ms)} jobs; forward of 16: {forward_ms:.0f}"
        limit = limit_ms if measured is URLS else None
        rows.append(measured.row(p50_ms, told, limit=limit))
    return rows


def _job_ms(served: Serving, body: bytes, plan: Plan) -> list[float]:
    served.run_jobs([body], callers=1, jobs=3)
    load = served.run_jobs([body], callers=1, jobs=plan.lengths.url_jobs)
    results = json.loads(load.completions[0].output)["output"]["results"]
    for number, result in enumerate(results):
        check_vector(result["embedding"], number, plan.references)
    return [(done.finished_s - done.queued_s) * 1e3 for done in load.completions]


def _certificate(authority_file: Path) -> ssl.SSLContext:
    """Write the certificate of a new authority; return what a server of its with name HOST needs."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(authority_file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(context)
    return context


@contextmanager
def _server(pictures: Sequence[bytes], tls: ssl.SSLContext | None) -> Iterator[int]:
    """Serve *pictures* as /0.jpg, /1.jpg and so on until the block ends; yield the port."""
    writers: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with closing(writer), suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                picture = pictures[int(request.split(b" ", 2)[1].strip(b"/").removesuffix(b".jpg"))]
                await asyncio.sleep(ANSWER_S)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(picture), picture))
                await writer.drain()
                if b"Connection: close" in request:
                    return

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls, backlog=128))
    thread = threading.Thread(target=loop.run_forever, name="pictures", daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        answering = asyncio.all_tasks(loop)
        for writer in writers:
            writer.transport.abort()
        if answering:
            loop.run_until_complete(asyncio.wait(answering))
        loop.close()
