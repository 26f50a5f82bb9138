"""Who may ask for an operator's action: a caller whose v3 signature covers the job.

A worker that looks at no signatures answers them only where ALLOW_OPERATOR_ACTIONS says so, since there
everybody is a caller. So does one whose transport vouches for a caller by a token. v1 and v2 cover one image
or text and never such a job.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from embedding.contract.signatures import REFUSAL
from embedding.errors import AuthFailed


if TYPE_CHECKING:
    from embedding.contract.signatures import Verifier

OFF: Final = (
    "this action is an operator's, and off on this worker: set EMBEDDING_HMAC_SECRET and sign the job (v3), "
    "or set ALLOW_OPERATOR_ACTIONS=1"
)


async def check_operator(
    verifier: Verifier | None,
    job_input: dict[str, Any],
    *,
    job_id: str | None,
    is_trusted: bool,
    is_allowed: bool,
) -> None:
    """Return if *job_input* may be done; raise AuthFailed otherwise.

    is_trusted: whether the transport vouches for the caller, who then need not sign.
    is_allowed: whether ALLOW_OPERATOR_ACTIONS is set.
    """
    if verifier is not None and not is_trusted:
        await asyncio.to_thread(verifier.verify_job, job_input, job_id=job_id)
    elif not is_allowed:
        raise AuthFailed(OFF if verifier is None else REFUSAL)
