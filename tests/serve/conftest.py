"""Real workers behind a loopback RunPod."""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import pytest

from embedding.serve.smoke import bundled_picture
from tests.loopback import LoopbackRunPod


ROOT = Path(__file__).parents[2]
SLOW_HANDLER = Path(__file__).with_name("slow_handler.py")

# Two threads of a shared machine: one each keeps neighbouring workers from fighting.
WORKER = {
    "RUNPOD_SERVERLESS": "1",
    "ALLOW_DEMO_MODEL": "1",
    "ALLOW_INSECURE_AUTH": "1",
    "OMP_NUM_THREADS": "1",
    "CLIP_PRECISION": "fp32",
    "PYTHONPATH": str(ROOT),
}
HANDLER = [sys.executable, str(ROOT / "handler.py")]


@pytest.fixture(scope="session")
def picture():
    """Return the bundled picture, a red circle, in base64."""
    return base64.b64encode(bundled_picture()).decode()


@pytest.fixture(scope="module")
def platform():
    """Return a loopback RunPod that holds polls for a second."""
    with LoopbackRunPod(hold_s=1.0) as platform:
        yield platform


@pytest.fixture(scope="module", params=["event", "sdk"])
def worker(platform, request):
    """Return the real worker, taking jobs by our loop and then by the SDK's."""
    with platform.worker(HANDLER, env=WORKER | {"JOB_LOOP": request.param}) as worker:
        worker.wait_ready(60)
        yield worker


@pytest.fixture
def slow_worker():
    """Return a platform and a worker whose forward of a text takes 0.4 s for each word."""
    with LoopbackRunPod(hold_s=1.0) as platform:
        with platform.worker([sys.executable, "-P", str(SLOW_HANDLER)], env=WORKER) as worker:
            worker.wait_ready(60)
            yield platform, worker
