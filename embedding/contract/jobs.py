"""A job as it stands in a file: `{"input": {...}}`, read for a dry run and signed for a caller."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from embedding.contract.signatures import sign_v3
from embedding.errors import InvalidInput, StartupError


if TYPE_CHECKING:
    from embedding.contract.keys import Key


def read_job(text: str, *, source: str) -> dict[str, Any]:
    """Return the job that *text* holds; *source* is what messages call it.

    Raises StartupError if it is not `{"input": {...}}`.
    """
    try:
        job = json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise StartupError(f"{source} is not JSON: {fault}") from None
    if not isinstance(job, dict) or not isinstance(job.get("input"), dict):
        raise StartupError(f'{source} is not a job: it must be {{"input": {{...}}}}')
    return job


def signed_job(job: dict[str, Any], key: Key, *, lifetime_s: int, source: str) -> dict[str, Any]:
    """Return *job* with a v3 `auth` in its input, good for *lifetime_s*; one that was there is replaced.

    Raises StartupError if the input or *lifetime_s* is out of its limits.
    """
    try:
        auth = sign_v3(job["input"], key, lifetime_s=lifetime_s)
    except InvalidInput as fault:
        raise StartupError(f"{source} cannot be signed: {fault.message}") from None
    return {**job, "input": {**job["input"], "auth": auth}}
