"""How the API answers: JSON, or a problem document (application/problem+json) that says what was wrong.

Every answer to a known key carries the RateLimit headers; a problem names its status a second time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from aiohttp import web


RATE_LIMITS = {
    "RateLimit": '"minute";r=59;t=60, "hour";r=2999;t=3600, "day";r=49999;t=86400',
    "RateLimit-Policy": '"minute";q=60;w=60, "hour";q=3000;w=3600, "day";q=50000;w=86400',
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and its JSON body; None is no body."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    def response(self) -> web.Response:
        """Return a fresh response; one response object can be sent only once."""
        headers = RATE_LIMITS | self.headers if self.status != HTTPStatus.UNAUTHORIZED else self.headers
        if self.body is None:
            return web.Response(status=self.status, headers=headers)
        kind = "application/json" if self.status < 400 else "application/problem+json"
        return web.Response(
            status=self.status, body=json.dumps(self.body).encode(), content_type=kind, headers=headers
        )


class Refused(Exception):
    """A request that the API refuses, and the problem document that says why."""

    def __init__(self, status: int, detail: str, *errors: str) -> None:
        super().__init__(detail)
        self.answer = problem(status, detail, *errors)


def problem(status: int, detail: str, *errors: str, headers: dict[str, str] | None = None) -> Answer:
    """Return a problem document; *errors* are the single failures of a body."""
    body: dict[str, Any] = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        body["title"] = "Unprocessable Entity"
    return Answer(status, body | ({"errors": list(errors)} if errors else {}), headers or {})


def invalid(*errors: str) -> Refused:
    """Return the refusal of a body that was read but is not what the route takes."""
    return Refused(422, "Request validation failed.", *errors)
