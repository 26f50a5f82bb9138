"""Coroutines called from plain code: an event loop in a thread of its own.

Ctrl-C reaches the main thread alone. The coroutine that it waits for is then cancelled, and waited for: that
is when remote jobs are cancelled.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar


if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

CANCEL_S: Final = 10.0


class Portal:
    """A running event loop; `close` ends it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="client", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return what *coroutine* returns, or raise what it raises."""
        ended = threading.Event()

        async def tracked() -> T:
            try:
                return await coroutine
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(tracked(), self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            ended.wait(CANCEL_S)
            raise

    def close(self) -> None:
        """Stop the loop, once; what still runs in it is dropped."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
