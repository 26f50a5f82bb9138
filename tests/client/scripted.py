"""An HTTP server on 127.0.0.1 that answers by a script: workers, platforms and proxies at their worst.

It stands in for both backends: without a script it embeds as a worker would, at any path, in the shape of
the service, or of the queue below `/v2/`.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: JSON or bytes, after *delay_s*; one that drops breaks the connection instead."""

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    drops: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came, and when."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    at_s: float

    @property
    def input(self):
        """Return the input of the job, whichever way it came."""
        return self.body.get("input", self.body)

    @property
    def contents(self):
        """Return what each item of the job holds."""
        return [next(iter(item.values())) for item in self.input["items"]]


def embedded(job_input, *, failing=(), fingerprint="f" * 16, dim=4):
    """Return a worker's answer to a batch; the items at *failing* fail for a reason that may pass."""
    vector = base64.b64encode(np.ones(dim, "<f4").tobytes()).decode()
    error = {"code": "DOWNLOAD_ERROR", "message": "the server answered 503", "retryable": True}
    results = [
        {"error": error} if index in failing else {"embedding": vector}
        for index, _ in enumerate(job_input["items"])
    ]
    return {"results": results, "fingerprint": fingerprint, "model": "scripted"}


def completed(output):
    """Return how the queue tells of a job that has ended well."""
    return {"id": "job-1", "status": "COMPLETED", "output": output}


def as_worker(asked, **odd):
    """Return what the worker that *asked* wanted would answer to it; *odd* is as in `embedded`."""
    output = embedded(asked.input, **odd)
    return completed(output) if asked.path.startswith("/v2/") else output


class Script:
    """Answers in the order given, each an Answer or a function of the request; then as a worker would."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.asked: list[Asked] = []
        self.url = ""
        self._lock = threading.Lock()

    def next(self, asked):
        """Return the answer to a request, and remember that."""
        with self._lock:
            self.asked.append(asked)
            answer = self.answers.pop(0) if self.answers else as_worker
        answer = answer(asked) if callable(answer) else answer
        return answer if isinstance(answer, Answer) else Answer(body=answer)


@contextmanager
def scripted():
    """Yield a Script that is answered by."""
    script = Script()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self):
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = json.loads(raw) if raw else {}
            asked = Asked(self.command, self.path, dict(self.headers), body, time.monotonic())
            answer = script.next(asked)
            time.sleep(answer.delay_s)
            if answer.drops:
                self.close_connection = True
                return
            content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response_only(answer.status)  # without a Date of its own
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_CONNECT = _answer  # noqa: N815  names of the standard library

        def log_message(self, *_args):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_args):
            pass  # a caller that went away

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    script.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
