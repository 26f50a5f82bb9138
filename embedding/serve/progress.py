"""How far a long job is, told to the platform without ever coming after its result.

The SDK's `progress_update` starts a thread for each update and waits for none, so that one can arrive after
the result and turn a finished job back into one in progress (runpod-python issue 250). Here the SDK's own
coroutine is awaited, one update after the other, before the job goes on: when the result is posted, each
update has been answered, or its connection was closed.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

POST_S: Final = 10.0  # for one update, the SDK's retries included; the job waits as long

log = logging.getLogger(__name__)


def reporter(job: dict[str, Any]) -> Callable[[dict[str, Any]], Awaitable[None]]:
    """Return what tells the platform how far *job* is.

    An update that the platform refuses is logged, and costs that one alone. After one that it does not answer
    no other is sent: it may come to know of that one late, and each that follows would make the job wait.
    """
    is_answered = True

    async def report(told: dict[str, Any]) -> None:
        nonlocal is_answered
        if not is_answered:
            return
        from runpod.http_client import AsyncClientSession  # noqa: PLC0415  (the SDK is imported by then)
        from runpod.serverless.modules.rp_progress import _async_progress_update  # noqa: PLC0415

        try:
            async with asyncio.timeout(POST_S), AsyncClientSession() as session:
                await _async_progress_update(session, job, told)
        except TimeoutError:
            is_answered = False
            log.warning("the platform did not take an update of progress within %g s: no more", POST_S)

    return report
