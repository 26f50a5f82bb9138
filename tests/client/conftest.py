"""Both backends, each started once for all tests that need it."""

from __future__ import annotations

import pytest

from embedding.client import retries
from tests.client import workers


@pytest.fixture(scope="session")
def serverless():
    """Return the worker behind a loopback RunPod."""
    with workers.serverless() as backend:
        yield backend


@pytest.fixture(scope="session")
def http():
    """Return the HTTP service."""
    with workers.http() as backend:
        yield backend


@pytest.fixture(params=["serverless", "http"])
def backend(request):
    """Return one backend and then the other: what holds for one holds for both."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def client(backend):
    """Return a client of the backend, closed at the end."""
    with backend.client() as client:
        yield client


@pytest.fixture
def short_pauses(monkeypatch):
    """Let the pauses between attempts be a hundredth of theirs."""
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", retries.FIRST_PAUSE_S / 100)
