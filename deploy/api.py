"""RunPod's REST API v2, as far as endpoints need it: one method for each call, errors whole, retries bounded.

What can be repeated without harm (GET, PATCH with absolute values, DELETE) is tried again after 429, 5xx and
broken connections, after a random part of a time that doubles; a 429 says itself how long to wait. A POST is
repeated only where it cannot have been carried out; else it raises Unanswered, and `creating` looks before it
tries again. The document of the API knows no pages: a list is whole. The key goes to https, or to loopback.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote, urlsplit

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_random_exponential

from deploy.errors import ApiError, DeployError, Gone, NoConnection, Unanswered
from embedding.contract.destinations import may_carry_credentials


if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

DEFAULT_URL: Final = "https://api.runpod.io/v2"
ATTEMPTS: Final = 5
LONGEST_WAIT_S: Final = 60.0  # a 429 of the API's minute window ends within it; hours are not waited for
TIMEOUT: Final = httpx.Timeout(60, connect=10)
TRANSIENT: Final = frozenset({500, 502, 503, 504})
TOO_MANY: Final = 429
NOT_FOUND: Final = 404
FIRST_ERROR: Final = 400

Json = dict[str, Any]


class _Again(Exception):
    """A request that may be tried again, after *wait_s* where the server said so."""

    def __init__(self, cause: DeployError, wait_s: float | None = None) -> None:
        self.cause = cause
        self.wait_s = wait_s


class Api:
    """A client with a key, or none; a context manager. *notice* is told of every wait."""

    def __init__(self, key: str | None, *, url: str = DEFAULT_URL, notice: Callable[[str], None]) -> None:
        self._url = checked_url(url).rstrip("/")
        self._notice = notice
        if key and not (key.isascii() and key.isprintable() and " " not in key):
            raise DeployError(
                "the API key or token has a space, a line break or a sign that is not ASCII in it",
                hint="copy it again: RUNPOD_API_KEY for RunPod, WORKER_TOKEN for a worker over HTTP",
            )
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(timeout=TIMEOUT, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def endpoints(self) -> list[Json]:
        """Return all endpoints of the account."""
        return self._list("serverless", "endpoints")

    def endpoint(self, endpoint_id: str) -> Json:
        """Return one endpoint; raises Gone."""
        return self.call("GET", f"serverless/{_part(endpoint_id)}")

    def create_endpoint(self, body: Json) -> Json:
        """Create an endpoint and return it; raises Unanswered if it cannot be known whether it was."""
        return self.call("POST", "serverless", body)

    def update_endpoint(self, endpoint_id: str, body: Json) -> Json:
        """Change the fields in *body* and return the endpoint as it is then."""
        return self.call("PATCH", f"serverless/{_part(endpoint_id)}", body)

    def delete_endpoint(self, endpoint_id: str) -> bool:
        """Delete an endpoint; return whether it was there."""
        return self._delete(f"serverless/{_part(endpoint_id)}")

    def workers(self, endpoint_id: str, *, once: bool = False) -> Json:
        """Return `workers`, `summary` and `endpointVersion`."""
        return self.call("GET", f"serverless/{_part(endpoint_id)}/workers", once=once)

    def releases(self, endpoint_id: str) -> Json:
        """Return `releases`, newest first, and `rollout`."""
        return self.call("GET", f"serverless/{_part(endpoint_id)}/releases")

    def volumes(self) -> list[Json]:
        """Return all network volumes of the account."""
        return self._list("network-volumes", "networkVolumes")

    def create_volume(self, body: Json) -> Json:
        """Create a network volume and return it; raises Unanswered as create_endpoint does."""
        return self.call("POST", "network-volumes", body)

    def resize_volume(self, volume_id: str, size_gb: int) -> Json:
        """Let a network volume grow."""
        return self.call("PATCH", f"network-volumes/{_part(volume_id)}", {"size": size_gb})

    def delete_volume(self, volume_id: str) -> bool:
        """Delete a network volume with all that is on it; return whether it was there."""
        return self._delete(f"network-volumes/{_part(volume_id)}")

    def registries(self) -> list[Json]:
        """Return the names and ids of all registry credentials."""
        return self._list("registries", "registries")

    def create_registry(self, body: Json) -> Json:
        """Store registry credentials; raises Unanswered as create_endpoint does."""
        return self.call("POST", "registries", body)

    def gpu_pools(self) -> list[str]:
        """Return the serverless GPU pools that the catalog has."""
        return sorted({gpu["pool"] for gpu in self._list("catalog/gpus", "gpus") if gpu.get("pool")})

    def call(self, method: str, path: str, body: Json | None = None, *, once: bool = False) -> Json:
        """Send a request and return the JSON object answered; *path* is below the API or a whole URL.

        once: do not try again what may be tried again, for callers that do so themselves.
        """
        url = checked_url(path) if "://" in path else f"{self._url}/{path}"
        attempts = Retrying(
            stop=stop_after_attempt(1 if once else ATTEMPTS),
            wait=self._wait_s,
            retry=retry_if_exception_type(_Again),
            reraise=True,
        )
        try:
            return attempts(self._send, method, url, body)
        except _Again as last:
            raise last.cause from None

    def _send(self, method: str, url: str, body: Json | None) -> Json:
        request = f"{method} {urlsplit(url).path}"
        try:
            response = self._http.request(method, url, json=body)
        except (httpx.ConnectError, httpx.ConnectTimeout) as failed:
            cause = str(failed).rpartition("] ")[2] or "it takes too long"
            told = f"{request}: no connection to {urlsplit(url).netloc}: {cause}"
            raise _Again(NoConnection(told)) from None
        except (httpx.TransportError, httpx.DecodingError, httpx.InvalidURL):
            raise _again_unless_post(method, Unanswered(f"{request}: the connection broke")) from None
        if response.status_code >= FIRST_ERROR:
            raise _refusal(method, request, response)
        if not response.content:
            return {}
        answer = _json_of(response)
        if not isinstance(answer, dict):
            raise _again_unless_post(method, Unanswered(f"{request}: the answer is not a JSON object"))
        return answer

    def _wait_s(self, state: RetryCallState) -> float:
        again = state.outcome.exception() if state.outcome else None
        told_s = again.wait_s if isinstance(again, _Again) else None
        wait_s = wait_random_exponential(multiplier=0.5, max=15)(state) if told_s is None else told_s
        if wait_s > 1 and isinstance(again, _Again):
            self._notice(f"{again.cause.message.splitlines()[0]}; trying again in {wait_s:.0f} s")
        return wait_s

    def _list(self, path: str, key: str) -> list[Json]:
        answer = self.call("GET", path).get(key)
        if not isinstance(answer, list):
            raise DeployError(f"GET {path}: the answer has no list of {key}")
        return answer

    def _delete(self, path: str) -> bool:
        try:
            self.call("DELETE", path)
        except Gone:
            return False
        return True


def checked_url(url: str) -> str:
    """Return *url* if a key may be sent there: https, or http to this machine; raises DeployError."""
    if may_carry_credentials(url):
        return url
    raise DeployError(
        f"{url} is no address for a key", hint="it must be https://..., or http:// to 127.0.0.1"
    )


def _part(name: str) -> str:
    return quote(name, safe="")


def _again_unless_post(method: str, unanswered: Unanswered) -> Exception:
    return unanswered if method == "POST" else _Again(unanswered)


def _refusal(method: str, request: str, response: httpx.Response) -> Exception:
    status, problem = response.status_code, _json_of(response)
    if not isinstance(problem, dict):
        problem = {"title": response.reason_phrase, "detail": response.text[:500].strip()}
    error = (Gone if status == NOT_FOUND else ApiError)(request, status, problem)
    if status == TOO_MANY:
        told_s = _seconds(response.headers.get("Retry-After"))
        return error if told_s is not None and told_s > LONGEST_WAIT_S else _Again(error, told_s)
    if status in TRANSIENT:
        return _again_unless_post(method, Unanswered(error.message)) if method == "POST" else _Again(error)
    return error


def _json_of(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.strip().isdecimal() else None
