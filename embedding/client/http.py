"""Requests to the always-on service: the input of a job is the body."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from embedding.client.errors import JobFailed, Refused
from embedding.client.wire import Wire, to_json
from embedding.contract.signatures import sign_v3


if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedding.contract.keys import Key

REQUEST_BYTES: Final = 30_000_000  # MAX_REQUEST_SIZE_BYTES of a service that is not told otherwise
BATCH_PATH: Final = "/v1/embed/image-batch"
NOT_FOUND: Final = 404
TOO_LARGE: Final = 413


class HttpTransport:
    """One service; *hint* is what to tell a caller whom it does not let in."""

    def __init__(self, wire: Wire, base_url: str, key: Key | None, *, timeout_s: float, hint: str) -> None:
        self._wire = wire
        self._url = base_url.rstrip("/")
        self._key = key
        self._timeout_s = timeout_s
        self._hint = hint
        self.max_request_bytes = REQUEST_BYTES

    async def run(self, job_input: Mapping[str, Any]) -> Any:
        """Return the answer to a batch. Raises JobFailed, Refused, BadAnswer, Unreachable or Closed."""

        def body() -> bytes:
            signed = job_input if self._key is None else {**job_input, "auth": sign_v3(job_input, self._key)}
            return to_json(signed)

        try:
            return await self._send("POST", BATCH_PATH, body)
        except Refused as refusal:
            raise self._failure(refusal) from None

    async def health(self) -> Any:
        """Return what the worker says of itself. Raises Refused, BadAnswer, Unreachable or Closed."""
        return await self._send("GET", "/health")

    async def aclose(self) -> None:
        """Close all connections."""
        await self._wire.aclose()

    async def _send(self, method: str, path: str, body: Any = None) -> Any:
        try:
            return await self._wire.send(
                method, f"{self._url}{path}", self._wire.attempts(self._timeout_s), body
            )
        except Refused as refusal:
            if refusal.status != NOT_FOUND:
                raise
            hint = f"there is no {path}: give the address of such a service, without a path"
            raise Refused(refusal.status, refusal.body, hint) from None

    def _failure(self, refusal: Refused) -> JobFailed | Refused:
        """Return the worker's own error where *refusal* holds one; a proxy's is kept as it is.

        No item is to blame for an address that has no such route, whoever says so.
        """
        if refusal.status == NOT_FOUND:
            return refusal
        try:
            error = json.loads(refusal.body)["error"]
            code, message, retryable = error["code"], error["message"], error["retryable"] is True
        except (KeyError, RecursionError, TypeError, ValueError):
            code, message, retryable = "", str(refusal), False
        if not isinstance(code, str):
            return refusal
        if refusal.status == TOO_LARGE and code in ("", "INVALID_INPUT"):
            return JobFailed("REQUEST_TOO_LARGE", message, retryable=False)
        if code == "AUTH_FAILED":
            message = f"{message}; {self._hint}"
        return JobFailed(code, message, retryable=retryable) if code else refusal
