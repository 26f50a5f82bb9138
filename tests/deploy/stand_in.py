"""A worker that answers smoke tests without a model: bare HTTP to the loopback platform, in a thread."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress

import requests

from tests.loopback_tests.wire import Wire


DIM = 4
RED, BLUE = [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]


def answer(job_input, identity):
    """Return what a good worker answers: the picture is as red as the text that says so."""
    if job_input.get("action") == "health":
        return {"status": "ok", "model": "demo", "fingerprint": "f", "device": "cpu", "identity": identity}
    results = [
        {"embedding": BLUE if "blue" in item.get("text", "") else RED, "dim": DIM}
        for item in job_input["items"]
    ]
    return {"results": results, "errors": 0}


@contextmanager
def stand_in_worker(platform, *, identity, reply=answer):
    """Answer the platform's jobs by *reply* until the block ends; yields the inputs that came."""
    over, inputs = threading.Event(), []

    def work():
        wire = Wire(platform)
        with wire.session, suppress(requests.RequestException):
            while not over.is_set():
                took = wire.take()
                if took.status_code == 200:
                    job = took.json()
                    inputs.append(job["input"])
                    body = reply(job["input"], identity())
                    wire.done(job["id"], body if "error" in body else {"output": body})

    thread = threading.Thread(target=work, name="stand-in", daemon=True)
    thread.start()
    try:
        yield inputs
    finally:
        over.set()
        thread.join()
