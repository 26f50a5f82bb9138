"""Log lines in the shape that the place expects.

On RunPod one JSON object a line, `{"requestId", "message", "level"}`, as its own SDK writes them, so the
console groups them by job; elsewhere `LEVEL | job | message`. Everything goes to stderr.
"""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from typing import Final


job_id: ContextVar[str | None] = ContextVar("job_id", default=None)

LEVELS: Final = {"NOTSET": logging.CRITICAL, "TRACE": logging.DEBUG, "WARN": logging.WARNING}


def set_up(*, level: str, as_json: bool) -> None:
    """Send the package's log records of *level* (the SDK's names) and above to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLine() if as_json else _PlainLine())
    logger = logging.getLogger("embedding")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(LEVELS.get(level, level))


class _PlainLine(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(levelname)-7s| %(job)s%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        job = job_id.get()
        record.job = f"{job} | " if job else ""
        return super().format(record)


class _JsonLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        message = super().format(record)
        return json.dumps({"requestId": job_id.get(), "message": message, "level": record.levelname})
