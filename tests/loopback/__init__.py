"""RunPod on 127.0.0.1: a queue endpoint that drives the real SDK's worker and answers the real SDK's client.

>>> with LoopbackRunPod() as platform, platform.worker([sys.executable, "handler.py"]) as worker:
...     worker.wait_ready()
...     result = platform.run_sync({"action": "text", "text": "a red circle"})
"""

from __future__ import annotations

from .callers import Completion, Load
from .faults import DROPPED, LOST_REPLY, TRUNCATED_JSON, WRONG_CONTENT_TYPE, Fault
from .jobs import JobRecord, JobResult, Ping, Posted, Status, Take
from .platform import LoopbackRunPod
from .worker import Worker, WorkerDied


__all__ = [
    "DROPPED",
    "LOST_REPLY",
    "TRUNCATED_JSON",
    "WRONG_CONTENT_TYPE",
    "Completion",
    "Fault",
    "JobRecord",
    "JobResult",
    "Load",
    "LoopbackRunPod",
    "Ping",
    "Posted",
    "Status",
    "Take",
    "Worker",
    "WorkerDied",
]
