"""Ask a deployed worker as its callers do: through RunPod's queue, or over HTTP.

Jobs are signed (v3) where EMBEDDING_HMAC_SECRET is given; HTTP takes WORKER_TOKEN where that is. RunPod's
load balancer wants the API key as bearer token itself, so what goes through it is signed. A job has a time to
live: one that no worker took is gone from the queue when the wait is over.
"""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

from deploy.errors import NOT_THE_SECRET, ApiError, DeployError, NoConnection, Unanswered
from embedding.contract.keys import Key, Keyring
from embedding.contract.signatures import MAX_LIFETIME_S, sign_v3


if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from deploy.api import Api
    from deploy.context import Deadline

FINAL: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})
MIN_TTL_MS: Final = 10_000
JOB_POLL_S: Final = 1.0  # RunPod lets 200 status requests a second through; its management API 1
NOT_YET: Final = frozenset(
    {429, 500, 502, 503, 504}
)  # as an empty answer: a load balancer whose worker is on its way
CONNECTS: Final = 3
QUEUE_PATH: Final = re.compile(r"/v2/[^/]+/?")


class Caller(Protocol):
    """Sends one input and returns the worker's answer; raises DeployError for a failed one."""

    def ask(self, job_input: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        """Return the output."""

    def health(self, deadline: Deadline) -> dict[str, Any]:
        """Return what the worker says of itself."""

    def curl(self) -> str:
        """Return a command line that embeds one text, good for an hour and for one call."""


@dataclass(frozen=True, slots=True)
class QueueCaller:
    """Jobs by /run and /status. *look* is called between two looks at a job, and says how workers stand."""

    api: Api
    urls: Mapping[str, str]
    key: Key | None = field(repr=False)
    poll_s: float
    look: Callable[[str], str | None]

    def ask(self, job_input: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        """Queue a job and return its output; raises DeployError when it fails or *deadline* is over."""
        job_id = self._post(job_input, deadline)
        try:
            return self._output(job_id, deadline)
        except KeyboardInterrupt:
            self._cancel(job_id)
            raise

    def _output(self, job_id: str, deadline: Deadline) -> dict[str, Any]:
        hint, looked_s = None, -math.inf
        while True:
            job = self.api.call("GET", self._job_url("status", job_id))
            if job["status"] in FINAL:
                return _output_of(job)
            if time.monotonic() - looked_s >= self.poll_s:
                hint, looked_s = self.look(f"job {job['status']}"), time.monotonic()
            if not deadline.left_s:
                self._cancel(job_id)
                raise DeployError(f"the job was still {job['status']} when the wait was over", hint=hint)
            time.sleep(min(self.poll_s, JOB_POLL_S, deadline.left_s))

    def health(self, deadline: Deadline) -> dict[str, Any]:
        """Return what the worker says of itself."""
        return self.ask({"action": "health"}, deadline)

    def curl(self) -> str:
        """Return a command line that embeds one text, good for an hour and for one call."""
        return _curl(self.urls["runSync"], {"input": _signed({"text": "a red circle"}, self.key)})

    def _post(self, job_input: Mapping[str, Any], deadline: Deadline) -> str:
        """Queue the job; one whose answer is lost may run, so the next is signed anew."""
        ttl_ms = max(MIN_TTL_MS, int(deadline.left_s * 1000))
        while True:
            body = {"input": _signed(job_input, self.key), "policy": {"ttl": ttl_ms}}
            try:
                return str(self.api.call("POST", self.urls["run"], body)["id"])
            except Unanswered:
                if not deadline.left_s:
                    raise
                time.sleep(min(self.poll_s, deadline.left_s))

    def _cancel(self, job_id: str) -> None:
        try:
            self.api.call("POST", self._job_url("cancel", job_id), once=True)
        except DeployError:
            return  # its time to live ends it

    def _job_url(self, route: str, job_id: str) -> str:
        return self.urls[route].replace("{job_id}", job_id)


@dataclass(frozen=True, slots=True)
class HttpCaller:
    """Requests to a worker that serves HTTP. *bearer* is the variable whose value its API sends.

    is_new: the address may lead nowhere yet, as that of an endpoint just created; else that is told soon.
    """

    api: Api
    url: str
    key: Key | None = field(repr=False)
    poll_s: float
    look: Callable[[str], str | None]
    bearer: str
    is_new: bool = True

    def ask(self, job_input: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        """Send a batch and return the answer; a service that is starting or full is asked again."""
        return self._until("POST", "/v1/embed/image-batch", job_input, deadline)

    def health(self, deadline: Deadline) -> dict[str, Any]:
        """Return what the worker says of itself."""
        return self._until("GET", "/health", None, deadline)

    def curl(self) -> str:
        """Return a command line that embeds one text, good for an hour and for one call."""
        body = _signed({"text": "a red circle"}, self.key)
        return _curl(f"{self.url.rstrip('/')}/v1/embed/text", body, bearer=self.bearer)

    def _until(
        self, method: str, path: str, body: Mapping[str, Any] | None, deadline: Deadline
    ) -> dict[str, Any]:
        connects_left = CONNECTS
        while True:
            try:
                signed = _signed(body, self.key) if body is not None else None
                answer = self.api.call(method, f"{self.url.rstrip('/')}{path}", signed, once=True)
                if answer:
                    return answer
                raise Unanswered(f"{method} {path}: the answer is empty, as while a worker starts")
            except DeployError as failed:
                connects_left -= isinstance(failed, NoConnection) and not self.is_new
                if not deadline.left_s or not connects_left:
                    raise
                if isinstance(failed, ApiError) and failed.status not in NOT_YET:
                    raise
                self.look(failed.message.splitlines()[0])
            time.sleep(min(self.poll_s, deadline.left_s))


def caller_of(
    api: Api,
    endpoint: Mapping[str, Any],
    *,
    key: Key | None,
    poll_s: float,
    look: Callable[[str], str | None] = lambda _: None,
) -> Caller:
    """Return what asks the workers of *endpoint*, whose *key* signs."""
    urls = urls_of(endpoint)
    if "run" in urls:
        return QueueCaller(api, urls, key, poll_s, look)
    return HttpCaller(api, urls["base"], key, poll_s, look, "RUNPOD_API_KEY")


def urls_of(endpoint: Mapping[str, Any]) -> Mapping[str, str]:
    """Return where an endpoint is asked: as the API says, which need not say it, else by its id."""
    if urls := endpoint.get("requestUrls"):
        return dict(urls)
    name = endpoint["id"]
    if endpoint.get("type") == "LOAD_BALANCER":
        base = f"https://{name}.api.runpod.ai"
        return {"base": base, "health": f"{base}/ping"}
    return queue_urls(f"https://api.runpod.ai/v2/{name}") or {}


def key_of(environ: Mapping[str, str]) -> Key | None:
    """Return the key that signs, the newest of EMBEDDING_HMAC_SECRET; None where that is not set."""
    setting = environ.get("EMBEDDING_HMAC_SECRET", "").strip()
    if not setting:
        return None
    try:
        return Keyring.parse(setting).newest
    except ValueError as fault:
        raise DeployError(str(fault)) from None


def queue_urls(url: str) -> dict[str, str] | None:
    """Return the addresses of a queue endpoint whose *url* ends in /v2/ID; None for any other URL."""
    if not QUEUE_PATH.fullmatch(urlsplit(url).path):
        return None
    base = url.rstrip("/")
    jobs = {route: f"{base}/{route}/{{job_id}}" for route in ("status", "cancel")}
    return {"run": f"{base}/run", "runSync": f"{base}/runsync", "health": f"{base}/health", **jobs}


def _output_of(job: Mapping[str, Any]) -> dict[str, Any]:
    output = job.get("output")
    if job["status"] != "COMPLETED":
        reason = str(job.get("error") or "no reason was given")
        hint = NOT_THE_SECRET if "AUTH_FAILED" in reason else None
        raise DeployError(f"the job is {job['status']}: {reason}", hint=hint)
    if not isinstance(output, dict):
        raise DeployError("the job is COMPLETED and has no output")
    return output


def _signed(job_input: Mapping[str, Any], key: Key | None) -> dict[str, Any]:
    if key is None or job_input.get("action") == "health":
        return dict(job_input)
    return {**job_input, "auth": sign_v3(job_input, key, lifetime_s=MAX_LIFETIME_S)}


def _curl(url: str, body: Mapping[str, Any], *, bearer: str = "RUNPOD_API_KEY") -> str:
    return (
        f'curl -s {url} -H "Authorization: Bearer ${bearer}" -H "Content-Type: application/json" '
        f"-d '{json.dumps(body)}'"
    )
