"""RunPod's management API (REST v2) on 127.0.0.1, for what creates, changes and deletes endpoints.

>>> with LoopbackRunPod() as platform, ManagementApi(job_url=platform.endpoint_url) as api:
...     api.fail_next("POST /v2/serverless", LOST_ANSWER)
...     deploy(api.url, api.api_key)
...     assert len(api.endpoints) == 1
"""

from __future__ import annotations

from .faults import (
    ANY_ROUTE,
    DROPPED,
    LOST_ANSWER,
    Fault,
    broken,
    over_quota,
    rate_limited,
    refused,
    stalled,
    unprocessable,
)
from .server import ManagementApi, Request


__all__ = [
    "ANY_ROUTE",
    "DROPPED",
    "LOST_ANSWER",
    "Fault",
    "ManagementApi",
    "Request",
    "broken",
    "over_quota",
    "rate_limited",
    "refused",
    "stalled",
    "unprocessable",
]
