"""Coroutines called from plain code: an event loop in a thread of its own.

It works inside a running loop too, as in a notebook. Ctrl-C reaches the main thread alone: the coroutine that
it waits for is then cancelled and waited for, since that is when remote jobs are cancelled. A second Ctrl-C
does not wait. A fork copies no threads, so a child process starts its own at its first call.
"""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Final, TypeVar

from embedding.client.errors import Closed


if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

CANCEL_S: Final = 10.0


class Portal:
    """An event loop that runs from the first call to `close`; any thread may call."""

    def __init__(self) -> None:
        self._opening = threading.Lock()
        self._is_closed = False
        self._pid = 0  # no process's
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return what *coroutine* returns, or raise what it raises. Raises Closed after or by `close`."""
        ended = threading.Event()

        async def tracked() -> T:
            try:
                return await coroutine
            finally:
                ended.set()

        with self._opening:
            if self._is_closed:
                coroutine.close()
                raise Closed("this client is closed: make a new one")
            self._open()
            future = asyncio.run_coroutine_threadsafe(tracked(), self._loop)
        try:
            return future.result()
        except CancelledError:
            raise Closed("this client was closed while the call ran") from None
        finally:
            if not future.done():
                future.cancel()
                ended.wait(CANCEL_S)

    def close(self, finish: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Cancel what still runs, run what *finish* returns, and end the thread; once."""
        with self._opening:
            is_running = not self._is_closed and self._pid == os.getpid()
            self._is_closed = True
        if not is_running:
            return
        asyncio.run_coroutine_threadsafe(_wind_up(finish), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _open(self) -> None:
        if self._pid == os.getpid():
            return
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="embedding client", daemon=True)
        self._thread.start()
        self._pid = os.getpid()


async def _wind_up(finish: Callable[[], Coroutine[Any, Any, None]]) -> None:
    running = asyncio.all_tasks() - {asyncio.current_task()}
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await finish()
    await asyncio.get_running_loop().shutdown_default_executor()
