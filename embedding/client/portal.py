"""Coroutines called from plain code: an event loop in a thread of its own.

It works inside a running loop too, as in a notebook. Ctrl-C reaches the main thread alone: the coroutine that
it waits for is then cancelled and waited for, since that is when remote jobs are cancelled. A second Ctrl-C
does not wait. A fork copies no threads, so a child process starts its own at its first call.

Nothing waits for a thread in which a caller's generator is being read: it ends when the generator answers.
"""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from embedding.client.errors import Closed


if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

CANCEL_S: Final = 10.0
READERS: Final = 256  # calls whose generators may wait at once, also for each other


class Portal:
    """An event loop that runs from the first call to `close`; any thread may call."""

    def __init__(self) -> None:
        self._opening = threading.Lock()
        self._is_closed = False
        self._pid = 0  # no process's
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread
        self._calls: set[asyncio.Task[Any]] = set()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return what *coroutine* returns, or raise what it raises. Raises Closed after or by `close`."""
        outcome: Future[T] = Future()
        with self._opening:
            if self._is_closed:
                coroutine.close()
                raise Closed("this client is closed: make a new one")
            self._open()
            call = _Call(coroutine, outcome)
            self._loop.call_soon_threadsafe(call.start, self._calls)
        try:
            return outcome.result()
        finally:
            if not outcome.done():
                self._loop.call_soon_threadsafe(call.cancel)
                wait([outcome], CANCEL_S)
            del call, outcome  # this frame and what it raises would hold each other, and a dropped client

    def close(self, finish: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Cancel what still runs, run what *finish* returns, and end the thread; once."""
        with self._opening:
            ending = self.abandon(finish)
        if ending is not None:
            ending.result()
            self._thread.join()

    def abandon(self, finish: Callable[[], Coroutine[Any, Any, None]]) -> Future[None] | None:
        """Begin to close, and return what that comes to; None if there is nothing to end.

        It waits for nothing, no lock either: a finalizer runs in any thread, in the loop's own too, and
        since it is called when nobody holds the client there is no other call.
        """
        is_running = not self._is_closed and self._pid == os.getpid()
        self._is_closed = True
        if not is_running:
            return None
        ending = asyncio.run_coroutine_threadsafe(self._wind_up(finish), self._loop)
        ending.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._loop.stop))
        return ending

    def _open(self) -> None:
        if self._pid == os.getpid():
            return
        self._loop, self._calls = asyncio.new_event_loop(), set()
        self._loop.set_default_executor(ThreadPoolExecutor(READERS))
        self._thread = threading.Thread(target=_run, args=(self._loop,), name="embedding client", daemon=True)
        self._thread.start()
        self._pid = os.getpid()

    async def _wind_up(self, finish: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Cancel the calls, and not what they wait for: they need that to cancel their jobs."""
        for task in self._calls:
            task.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        await finish()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


class _Exit(Exception):
    """Holds what a caller's generator raised to end its program, which a task would end the loop by."""

    def __init__(self, fault: BaseException) -> None:
        super().__init__(fault)
        self.fault = fault


async def _contained(coroutine: Coroutine[Any, Any, T]) -> T:
    try:
        return await coroutine
    except (KeyboardInterrupt, SystemExit) as fault:
        raise _Exit(fault) from None


class _Call(Generic[T]):
    """A coroutine on its way through the loop, whose end another thread waits for."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], outcome: Future[T]) -> None:
        self._coroutine, self._outcome = coroutine, outcome
        self._task: asyncio.Task[T]

    def start(self, calls: set[asyncio.Task[Any]]) -> None:
        self._task = asyncio.get_running_loop().create_task(_contained(self._coroutine))
        calls.add(self._task)
        self._task.add_done_callback(calls.discard)
        self._task.add_done_callback(self._settle)

    def cancel(self) -> None:
        self._task.cancel()

    def _settle(self, task: asyncio.Task[T]) -> None:
        self._coroutine.close()  # a task that is cancelled before it begins does not touch it
        if task.cancelled():
            self._outcome.set_exception(Closed("this client was closed while the call ran"))
        elif fault := task.exception():
            self._outcome.set_exception(fault.fault if isinstance(fault, _Exit) else fault)
        else:
            self._outcome.set_result(task.result())
