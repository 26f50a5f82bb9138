"""The two backends as a test sees them: a real worker, and how to make a client for it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedding.client import HttpClient, ServerlessClient
from tests.loopback import LoopbackRunPod
from tests.serve.conftest import HANDLER, WORKER
from tests.serve.http.process import serving


if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "an-example-secret-of-at-least-32-bytes"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
BATCH_SIZE = 16
# Small, so that what a client sends by default is too much and must be halved.
SIGNED = {
    "ALLOW_DEMO_MODEL": "1",
    "ALLOW_INSECURE_AUTH": "0",
    "EMBEDDING_HMAC_SECRET": SECRET,
    "MAX_BATCH_SIZE": str(BATCH_SIZE),
    "MAX_RESPONSE_SIZE_BYTES": "40000",
    "WORKER_GIT_COMMIT": COMMIT,
}


@dataclass(frozen=True, slots=True)
class Backend:
    """A kind of worker: the client's class, the arguments that reach it, and the platform around it."""

    name: str
    kind: Callable[..., Any]
    reached_by: tuple[str, ...]
    options: dict[str, Any]
    platform: LoopbackRunPod | None = None

    def client(self, **options):
        """Return a client that signs; *options* win over the usual ones."""
        return self.kind(*self.reached_by, **{"secret": SECRET, **self.options, **options})


@contextmanager
def serverless():
    """Yield the real worker behind a loopback RunPod."""
    with LoopbackRunPod(hold_s=1.0) as platform, platform.worker(HANDLER, env=WORKER | SIGNED) as worker:
        worker.wait_ready(60)
        reached_by = (platform.endpoint_id, platform.api_key)
        yield Backend("serverless", ServerlessClient, reached_by, {"api_url": platform.base_url}, platform)


@contextmanager
def http():
    """Yield the real HTTP service."""
    with serving(SIGNED) as service:
        yield Backend("http", HttpClient, (service.url,), {})
