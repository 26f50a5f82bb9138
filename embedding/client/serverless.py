"""Jobs through RunPod's queue: sent, awaited, sent again where that helps, and cancelled when nobody waits.

A job goes to /runsync with a wait of two seconds: a warm worker answers within it, and of a longer job the
id is known so early that Ctrl-C can cancel it. What is not done by then is asked after at /status, in pauses
that grow to two seconds. Long jobs go to /run, whose results stay for 30 minutes instead of one; /runsync
carries 20 MB, /run 10 MB (RunPod's "Operation reference"). A job may run twice when an answer is lost: that
costs money, and changes nothing. A caller that is killed, or whose loop ends before it, cannot cancel, so a
job ends with its caller's time (`ttl`), and before its signature does.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from embedding.client.errors import BadAnswer, ClientError, JobFailed, Refused, Unreachable
from embedding.client.wire import Wire, to_json
from embedding.contract.signatures import MAX_LIFETIME_S, sign_v3


if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from embedding.client.retries import Attempts
    from embedding.contract.keys import Key

RUNSYNC_BYTES: Final = 20_000_000
RUN_BYTES: Final = 10_000_000
WAIT_MS: Final = 2_000
TTL_S: Final = (10.0, float(MAX_LIFETIME_S))  # what RunPod takes at least, and what a signature lasts
FIRST_POLL_S: Final = 0.1
LONGEST_POLL_S: Final = 2.0
CANCEL_S: Final = 5.0
FINAL: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})
NOT_FOUND, TOO_LARGE = 404, 413
_LOG: Final = logging.getLogger(__name__)
REFUSALS: Final = {
    401: "RunPod refuses the API key",
    403: "RunPod refuses the API key for this endpoint",
    NOT_FOUND: "RunPod knows no endpoint of this id, or not for this API key",
}


class Pauses(Protocol):
    """When to ask after a job again."""

    async def pause(self) -> None:
        """Wait until it is time."""

    def over(self, standing: Mapping[str, Any]) -> None:
        """Learn from how the job has ended."""


class ServerlessTransport:
    """One endpoint of RunPod's queue; *hint* is what to tell a caller whom its worker does not let in."""

    def __init__(
        self, wire: Wire, endpoint_url: str, key: Key | None, *, timeout_s: float, is_long: bool, hint: str
    ) -> None:
        self._wire = wire
        self._url = endpoint_url.rstrip("/")
        self._key = key
        self._timeout_s = timeout_s
        self._hint = hint
        self._submit_url = f"{self._url}/run" if is_long else f"{self._url}/runsync?wait={WAIT_MS}"
        shortest_s, longest_s = TTL_S
        self._policy = {"ttl": round(1e3 * min(max(timeout_s, shortest_s), longest_s))}
        self.max_request_bytes = RUN_BYTES if is_long else RUNSYNC_BYTES

    async def run(self, job_input: Mapping[str, Any]) -> Any:
        """Return the output of a job of *job_input*; a failed one that may succeed is sent again.

        Raises JobFailed, Refused, BadAnswer, Closed, or Unreachable when attempts or time are used up.
        """
        attempts = self._wire.attempts(self._timeout_s)
        sent = 0
        while True:
            sent += 1
            try:
                return await self._run_once(job_input, attempts)
            except JobFailed as failure:
                pause_s = attempts.pause_s(sent)
                if not failure.retryable or pause_s is None:
                    raise
                _LOG.info("%s; trying again", failure)
            await asyncio.sleep(pause_s)

    async def health(self) -> Any:
        """Return what a worker says of itself, by a job as any other."""
        return await self.run({"action": "health"})

    async def aclose(self) -> None:
        """Close all connections."""
        await self._wire.aclose()

    async def _run_once(self, job_input: Mapping[str, Any], attempts: Attempts) -> Any:
        standing = await self._submit(job_input, attempts)
        if _field(standing, "status") not in FINAL:
            job_id = _field(standing, "id")
            try:
                standing = await self._polled(standing, job_id, attempts)
            except JobFailed:
                raise
            except (ClientError, asyncio.CancelledError):
                await self._cancel_id(job_id)
                raise
        return self._output(standing)

    async def _submit(self, job_input: Mapping[str, Any], attempts: Attempts) -> Any:
        def body() -> bytes:
            signed = job_input if self._key is None else {**job_input, "auth": sign_v3(job_input, self._key)}
            return to_json({"input": signed, "policy": self._policy})

        try:
            return await self._wire.send("POST", self._submit_url, attempts, body, self._cancel)
        except Refused as refusal:
            if refusal.status == TOO_LARGE:
                raise JobFailed("REQUEST_TOO_LARGE", str(refusal), retryable=False) from None
            if refusal.status in REFUSALS:
                raise Refused(refusal.status, refusal.body, REFUSALS[refusal.status]) from None
            raise

    def _output(self, standing: Any) -> Any:
        """Return the output of the job that *standing* tells the end of. Raises JobFailed."""
        if standing["status"] != "COMPLETED":
            raise self._failure(standing["status"], standing)
        if standing.get("output") is None:
            raise JobFailed("JOB_LOST", "the platform has no output of the job", retryable=True)
        return standing["output"]

    async def _polled(self, standing: Any, job_id: str, attempts: Attempts) -> Any:
        """Return how the job has ended. Raises Unreachable if it has not when the time is over."""
        pauses, told = self._pauses(), ""
        while (status := _field(standing, "status")) not in FINAL:
            if status != told:
                _LOG.info("the job is %s", status)
                told = status
            try:
                async with asyncio.timeout(attempts.left_s):
                    await pauses.pause()
            except TimeoutError:
                raise Unreachable(_late(status, self._timeout_s)) from None
            standing = await self._status(job_id, attempts)
        pauses.over(standing)
        return standing

    def _pauses(self) -> Pauses:
        """Return the pauses of a job that was sent just now."""
        return _Growing()

    async def _status(self, job_id: str, attempts: Attempts) -> Any:
        try:
            return await self._wire.send("GET", f"{self._url}/status/{job_id}", attempts)
        except Refused as refusal:
            if refusal.status != NOT_FOUND:
                raise
            raise JobFailed("JOB_LOST", "the platform no longer knows the job", retryable=True) from None

    async def _cancel(self, standing: Any) -> None:
        """Cancel the job of *standing*, which came within the wait of /runsync."""
        if _field(standing, "status") not in FINAL:
            await self._cancel_id(_field(standing, "id"))

    async def _cancel_id(self, job_id: str) -> None:
        with suppress(ClientError):
            await self._wire.send(
                "POST", f"{self._url}/cancel/{job_id}", self._wire.attempts(CANCEL_S), bytes
            )

    def _failure(self, status: str, standing: Mapping[str, Any]) -> JobFailed:
        """Return what a job in *status* failed of; a worker writes `CODE: message`."""
        told = str(standing.get("error") or "the platform says no more")
        code, colon, message = told.partition(": ")
        if not colon or not code.replace("_", "").isupper():
            code, message = f"JOB_{status}", told
        if code == "AUTH_FAILED":
            message = f"{message}; {self._hint}"
        output = standing.get("output")
        retryable = isinstance(output, dict) and output.get("retryable") is True
        return JobFailed(code, message, retryable=retryable)


class _Growing:
    """Pauses that grow, for a job that is alone."""

    def __init__(self) -> None:
        self._lengths_s = pauses_s()

    async def pause(self) -> None:
        await asyncio.sleep(next(self._lengths_s))

    def over(self, standing: Mapping[str, Any]) -> None:
        pass


def pauses_s() -> Iterator[float]:
    """Yield how long to wait before each time that a job is asked after."""
    pause_s = FIRST_POLL_S
    while True:
        yield pause_s
        pause_s = min(LONGEST_POLL_S, pause_s * 1.5)


def _field(standing: Any, name: str) -> str:
    value = standing.get(name) if isinstance(standing, dict) else None
    if not isinstance(value, str):
        raise BadAnswer(f"the platform's answer has no {name}")
    return value


def _late(status: str, timeout_s: float) -> str:
    advice = ": no worker took it; has the endpoint any?" if status == "IN_QUEUE" else ""
    return f"the job is {status} after {timeout_s:g} s, and was cancelled{advice}"
