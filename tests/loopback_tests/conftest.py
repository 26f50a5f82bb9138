"""A platform without the SDK, for the tests of single routes."""

from __future__ import annotations

import pytest

from tests.loopback import LoopbackRunPod
from tests.loopback_tests.wire import Wire


@pytest.fixture
def platform():
    """A platform with short holds and low limits."""
    with LoopbackRunPod(
        hold_s=0.2, runsync_wait_s=0.2, run_max_bytes=1_000, runsync_max_bytes=2_000
    ) as platform:
        yield platform


@pytest.fixture
def wire(platform):
    """Bare HTTP to the platform."""
    wire = Wire(platform)
    with wire.session:
        yield wire
