"""Long polls: requests held open until there is something to answer, woken at once and never by a timer tick.

Everything here runs on one event loop, so that looking and taking cannot be interleaved.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, TypeVar


if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class HeldPolls:
    """The polls waiting for one thing, in order of arrival."""

    def __init__(self) -> None:
        self._held: deque[asyncio.Future[bool]] = deque()

    def wake(self, count: int = 1) -> None:
        """Let up to *count* held polls look again, the longest waiting first."""
        while count > 0 and self._held:
            held = self._held.popleft()
            if not held.done():
                held.set_result(True)
                count -= 1

    async def hold(self, look: Callable[[], T | None], hold_s: float) -> T | None:
        """Return the first answer of *look* that is not None, or None after *hold_s* seconds."""
        deadline_s = asyncio.get_running_loop().time() + hold_s
        while (found := look()) is None:
            if not await self._woken(deadline_s):
                return None
        return found

    async def _woken(self, deadline_s: float) -> bool:
        loop = asyncio.get_running_loop()
        held: asyncio.Future[bool] = loop.create_future()
        self._held.append(held)
        timer = loop.call_at(deadline_s, _expire, held)
        try:
            return await held
        except asyncio.CancelledError:
            if not held.cancelled():
                self.wake()  # a wake-up meant for whoever can still answer is not lost with this poll
            raise
        finally:
            timer.cancel()
            if held in self._held:
                self._held.remove(held)


def _expire(held: asyncio.Future[bool]) -> None:
    if not held.done():
        held.set_result(False)
