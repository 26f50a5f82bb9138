"""Is this the worker that was expected: asked once, after the first call that was answered, and only told.

By then a worker is warm, so that asking costs a moment and no cold start. Whatever comes of it, the vectors
are given: a typo in an expectation must cost nobody an answer.
"""

from __future__ import annotations

import asyncio
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from embedding.client.errors import ClientError, IdentityWarning
from embedding.contract.identity import Match, compare


if TYPE_CHECKING:
    from embedding.client.calls import Transport

ASK_S: Final = 5.0


@dataclass(slots=True)
class IdentityCheck:
    """What is expected of a worker's build; nothing where both are empty."""

    commit: str | None = None
    digest: str | None = None
    is_done: bool = False

    @property
    def is_asked(self) -> bool:
        """Whether anything is expected."""
        return bool(self.commit or self.digest)

    def match(self, health: dict[str, Any]) -> Match:
        """Return how the worker of this *health* stands to what is expected."""
        identity = health.get("identity")
        return compare(
            identity if isinstance(identity, dict) else {},
            expected_commit=self.commit,
            expected_digest=self.digest,
        )

    async def once(self, transport: Transport) -> None:
        """Ask the worker, if that was not done; give an IdentityWarning unless it is the expected one."""
        if self.is_done or not self.is_asked:
            return
        self.is_done = True
        try:
            async with asyncio.timeout(ASK_S):
                match = self.match(await transport.health())
        except TimeoutError:
            match = Match(None, f"none said within {ASK_S:g} s what it is")
        except ClientError:
            match = Match(None, "it does not say what it is")
        if match.matches is not True:
            stands = "is not" if match.matches is False else "may not be"
            told = f"this worker {stands} the expected one: {match.reason}"
            warnings.warn(told, IdentityWarning, stacklevel=2)
