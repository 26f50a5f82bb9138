"""Signals and loggers as a fresh process has them, and how many examples a property gets.

Hypothesis' own 100, or those of a --hypothesis-profile:

signatures  32,000: four properties make 100,000 changes to what was signed, and some that change nothing
strangers   5,000, for everything that a stranger may send
mutants     the same few every time, and no shrinking: that a test fails is all there is to know
"""

from __future__ import annotations

import logging
import signal

import pytest
from hypothesis import HealthCheck, Phase, settings


LONG = {"deadline": None, "suppress_health_check": list(HealthCheck)}

settings.register_profile("signatures", max_examples=32_000, **LONG)
settings.register_profile("strangers", max_examples=5_000, **LONG)
settings.register_profile(
    "mutants",
    max_examples=50,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    **LONG,
)

# A run in the background ignores it, and so would what the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _fresh_loggers():
    """Let pytest see the package's log again after a test that started a worker in this process."""
    logger = logging.getLogger("embedding")
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)
