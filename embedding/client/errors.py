"""What a caller of the client can catch, drawn as a tree.

    ClientError             `partial` holds what was embedded before, where it ended a call of many items
    ├── Unreachable         no usable answer within the attempts and the time
    ├── Refused             the platform said no: API key, endpoint, request; `status` is HTTP's
    ├── JobFailed           the worker failed the job as a whole; `code` and `retryable` are the worker's
    ├── BadAnswer           what answered is not a worker of this kind
    ├── ModelChanged        parts of one call were answered by different models
    ├── ItemsFailed         some items failed; `result` holds the vectors of the others
    ├── NotConfigured       the environment describes no client; each variable that is wrong is named
    └── Closed              the client was closed before or during the call

    IdentityWarning         the worker is not, or may not be, the one that was expected

An argument of the wrong type is a TypeError, one out of its limits a ValueError. No message holds an API key,
a secret or a token. Items fail by the worker's codes (README.md) and by these of the client:

    REQUEST_TOO_LARGE       something on the way takes no request of this item's size
    JOB_LOST                the platform no longer knows the job, or has no output of it
    JOB_FAILED, JOB_TIMED_OUT, JOB_CANCELLED    the platform ended the job without a word of the worker
    NOT_REACHED             in `partial`: the call ended before the item was embedded
"""

from __future__ import annotations

import copyreg
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from embedding.client.embeddings import Embeddings

TOLD_ITEMS = 3
TOLD_CHARS = 300


class ClientError(Exception):
    """A call that cannot be answered. It may be copied and pickled, as a pool of processes does."""

    partial: Embeddings | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own calls the class with `args`, the message, which is not what each of these takes.
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]


class Unreachable(ClientError):
    """No usable answer within the attempts and the time that the call had."""


class Refused(ClientError):
    """The platform or the service refused the request itself; trying again would not help."""

    def __init__(self, status: int, body: str, hint: str = "") -> None:
        told = f"HTTP {status}: {body[:TOLD_CHARS].strip()}"
        super().__init__(f"{hint} ({told})" if hint else told)
        self.status = status
        self.body = body


class JobFailed(ClientError):
    """The worker failed the job as a whole."""

    def __init__(self, code: str, message: str, *, retryable: bool) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retryable = retryable


class BadAnswer(ClientError):
    """What answered is not a worker of this kind, or not one that this client knows."""


class ModelChanged(ClientError):
    """Parts of one call were answered by models of different fingerprints, as a deployment went on."""


class NotConfigured(ClientError):
    """The environment, or a command line, describes no client; the message names all that is wrong."""


class Closed(ClientError):
    """The client was closed before or during the call; a new one is needed."""


class IdentityWarning(UserWarning):
    """The worker is not, or may not be, the one that was expected; its answers are given all the same."""


@dataclass(frozen=True, slots=True)
class ItemError:
    """Why the item at *index* of a call has no vector; *code* is the worker's, or one of this module's."""

    index: int
    code: str
    message: str
    retryable: bool = False


class ItemsFailed(ClientError):
    """Some items have no vector; `result` holds those of the others, and every error."""

    def __init__(self, result: Embeddings) -> None:
        failed = [error for error in result.errors if error is not None]
        told = "; ".join(
            f"item {error.index}: {error.code}: {error.message}" for error in failed[:TOLD_ITEMS]
        )
        more = f"; and {len(failed) - TOLD_ITEMS} more" if len(failed) > TOLD_ITEMS else ""
        super().__init__(f"{len(failed)} of {len(result.errors)} items failed: {told}{more}")
        self.result = result
        self.partial = result
