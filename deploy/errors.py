"""What can end a command of `python -m deploy`, drawn as a tree.

    DeployError                   one line, with a hint where there is one; exit status 1
    ├── ConfigError               the environment's file or a flag: every fault, a line each
    ├── ApiError                  RunPod refused: title, status, detail and errors[], whole
    │   └── Gone                  404: it is not there any more
    ├── NoConnection              nobody is at the address, or it is none
    └── Unanswered                no answer that tells whether the request took effect

No message holds the API key or a secret: what is printed goes through `console.Console`, which removes them.
"""

from __future__ import annotations

from typing import Any


FIRST_REFUSAL, FIRST_FAILURE, TOO_MANY = 400, 500, 429
HINTS = {
    401: "RUNPOD_API_KEY is not accepted: make a key in RunPod's console under Settings, API Keys",
    403: "this RUNPOD_API_KEY may not do that: give it read and write access to Serverless and Storage",
    404: "it was deleted elsewhere; `status` shows what is there, `apply` makes it anew",
    409: "something of this name is there already; `status` shows it, --endpoint-id names the one to change",
    429: "RunPod asks to wait: this account sent too many requests; try again in a minute",
}
NOT_THE_SECRET = (
    "the worker's EMBEDDING_HMAC_SECRET or WORKER_TOKEN is not this shell's, or a clock is minutes off"  # noqa: S105
)
WORDED_HINTS = {  # a word of the message, in small letters: the first that is found
    "quota": "workers.max of all endpoints together is bounded by the account's balance: "
    "lower workers.max here or elsewhere, or add funds",
    "balance": "add funds, or lower workers.max",
    "pool": "gpu.pools must be pools of RunPod's catalog",
    "gpu type": "gpu.excluded_types are GPU types of the pools, as the catalog names them",
    "registry": "registry: check its name in RunPod's console under Settings, Container Registry Auth",
    "volume": "a network volume and its workers are in one data center: check volume.data_center",
    "data center": "check data_centers and volume.data_center against RunPod's list of data centers",
    "cuda": "gpu.min_cuda_version is MAJOR.MINOR of a CUDA version that RunPod's drivers have",
    "already exists": HINTS[409],
    "name": "check `name`: another endpoint may have it",
}


class DeployError(Exception):
    """A command cannot go on; *hint* is what to do about it."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(DeployError):
    """The configuration is not valid; *faults* are all that is wrong with it, each naming its key."""

    def __init__(self, source: str, faults: list[str]) -> None:
        super().__init__(f"{source} is not valid:\n" + "\n".join(f"  {fault}" for fault in faults))
        self.faults = faults


class ApiError(DeployError):
    """RunPod answered with an error; all that it says is in the message."""

    def __init__(self, request: str, status: int, problem: dict[str, Any]) -> None:
        self.status = status
        title, detail = _title_and_detail(problem)
        each = [f"  {line}" for line in problem.get("errors") or []]
        message = "\n".join([f"{request} was answered with {status} {title}: {detail}".rstrip(": "), *each])
        super().__init__(message, hint=hint_for(status, message))

    @property
    def is_refusal(self) -> bool:
        """Whether the request was surely not carried out: it will not do, and was not merely too much."""
        return FIRST_REFUSAL <= self.status < FIRST_FAILURE and self.status != TOO_MANY


class Gone(ApiError):
    """What the request is about is not there."""


class NoConnection(DeployError):
    """Nobody answers at the address, so the request was not sent."""


class Unanswered(DeployError):
    """The connection broke, or RunPod failed, after a request that may have taken effect."""


def _title_and_detail(problem: dict[str, Any]) -> tuple[str, str]:
    """Return both, of RunPod's problem document or of a worker's `{"error": {code, message}}`."""
    error = problem.get("error")
    if isinstance(error, dict):
        return str(error.get("code")), str(error.get("message"))
    return str(problem.get("title") or "error"), str(problem.get("detail") or error or "")


def hint_for(status: int, message: str) -> str | None:
    """Return what to do about an error, by its words or its status; None where nothing is known."""
    if "AUTH_FAILED" in message:
        return NOT_THE_SECRET
    if status in {401, 403, 429}:
        return HINTS[status]
    said = message.casefold()
    worded = next((hint for word, hint in WORDED_HINTS.items() if word in said), None)
    if worded:
        return worded
    unread = "the body was refused as it is; --dry-run prints it"
    return HINTS.get(status) or (unread if status in {400, 422} else None)
