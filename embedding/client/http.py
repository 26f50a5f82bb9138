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

MAX_REQUEST_BYTES: Final = 30_000_000  # MAX_REQUEST_SIZE_BYTES of a service that is not told otherwise
BATCH_PATH: Final = "/v1/embed/image-batch"
ENVELOPE_BYTES: Final = 1_000


class HttpTransport:
    """One service."""

    def __init__(self, wire: Wire, base_url: str, key: Key | None, *, timeout_s: float) -> None:
        self._wire = wire
        self._url = base_url.rstrip("/")
        self._key = key
        self._timeout_s = timeout_s
        self.max_request_bytes = MAX_REQUEST_BYTES

    async def run(self, job_input: Mapping[str, Any]) -> Any:
        """Return the answer to a batch. Raises JobFailed, Refused, BadAnswer or Unreachable."""

        def body() -> bytes:
            return to_json(
                job_input if self._key is None else {**job_input, "auth": sign_v3(job_input, self._key)}
            )

        try:
            return await self._wire.send(
                "POST", f"{self._url}{BATCH_PATH}", self._wire.attempts(self._timeout_s), body
            )
        except Refused as refusal:
            raise _failure(refusal) from None

    async def health(self) -> Any:
        """Return what the worker says of itself."""
        return await self._wire.send("GET", f"{self._url}/health", self._wire.attempts(self._timeout_s))

    async def aclose(self) -> None:
        """Close all connections."""
        await self._wire.aclose()


def _failure(refusal: Refused) -> JobFailed | Refused:
    """Return the worker's own error where *refusal* holds one; a proxy's is kept as it is."""
    try:
        error = json.loads(refusal.body)["error"]
        return JobFailed(error["code"], error["message"], retryable=error["retryable"])
    except (KeyError, TypeError, ValueError):
        return refusal
