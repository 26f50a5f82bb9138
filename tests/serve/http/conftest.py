"""One service for all tests that change nothing in it."""

from __future__ import annotations

import pytest

from embedding.serve.smoke import bundled_picture
from tests.serve.http.browser import chromium
from tests.serve.http.process import OPEN, serving


# What the service declares of its build, and what else was expected: it serves all the same.
ANOTHER = {"WORKER_GIT_COMMIT": "a" * 40, "EXPECTED_WORKER_GIT_COMMIT": "b" * 40}


@pytest.fixture(scope="session")
def service():
    """Return the service with the demo model, open to whoever reaches its port, not the one expected."""
    with serving(OPEN | ANOTHER) as service:
        yield service


@pytest.fixture
def client(service):
    """Return what sends requests to the service."""
    return service.client


@pytest.fixture(scope="session")
def picture():
    """Return the bytes of the bundled picture, a red circle."""
    return bundled_picture()


@pytest.fixture(scope="session")
def browser():
    """Return Chromium, for which worker.test is 127.0.0.1."""
    with chromium("--host-resolver-rules=MAP worker.test 127.0.0.1") as browser:
        yield browser
