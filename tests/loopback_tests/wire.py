"""A worker and a caller made of bare HTTP requests, and how tests wait."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import requests


ECHO = ["env", f"PYTHONPATH={Path(__file__).parents[2]}", sys.executable]
ECHO += [str(Path(__file__).with_name("echo_handler.py"))]


def wait_until(is_so, timeout_s=5.0):
    """Return when *is_so* holds, or fail."""
    deadline_s = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


class Wire:
    """A worker and a caller made of bare HTTP requests."""

    def __init__(self, platform) -> None:
        self.platform = platform
        self.session = requests.Session()
        self.session.headers["Authorization"] = platform.api_key

    def get(self, path, **kwargs):
        """GET below the endpoint's address."""
        return self.session.get(f"{self.platform.endpoint_url}/{path}", timeout=10, **kwargs)

    def post(self, path, body=None, **kwargs):
        """POST bytes as they are, or anything else as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.session.post(f"{self.platform.endpoint_url}/{path}", data=data, timeout=10, **kwargs)

    def take(self, worker="w"):
        """Take one job."""
        return self.get(f"job-take/{worker}?gpu=X&job_in_progress=0")

    def take_batch(self, size, worker="w"):
        """Take up to *size* jobs."""
        return self.get(f"job-take-batch/{worker}?gpu=X&batch_size={size}&job_in_progress=0")

    def done(self, job_id, body, worker="w"):
        """Post a result."""
        return self.post(f"job-done/{worker}/{job_id}?gpu=X&isStream=false", body)
