"""A management API, and bare HTTP to it."""

from __future__ import annotations

import pytest

from tests.management_api import ManagementApi
from tests.management_api_tests.wire import Wire


@pytest.fixture
def api():
    """An API without anything in it."""
    with ManagementApi() as api:
        yield api


@pytest.fixture
def wire(api):
    """Bare HTTP to the API."""
    wire = Wire(api)
    with wire.session:
        yield wire
