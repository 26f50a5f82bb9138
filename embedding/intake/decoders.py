"""Pictures decoded by processes, for a caller that has many: threads would wait for one interpreter's lock.

Small pictures spend much of their decoding under that lock. The processes are forked from one that has torch
imported (`prepare` starts it), and share its memory. They end with the process that made them, however that
ends, and leave Ctrl-C to it from their first moment, when they still import.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from typing import TYPE_CHECKING, Any, Final, Protocol

from embedding.errors import WorkerError


if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future
    from ctypes import c_byte
    from multiprocessing.synchronize import Lock

    import numpy as np
    import numpy.typing as npt

    from embedding.intake.limits import ImageLimits
    from embedding.intake.preprocess import Preprocess

    Decoded = npt.NDArray[np.uint8] | WorkerError | OSError

START: Final = "forkserver"  # a fork of this process would copy locks that its threads hold


class Readable(Protocol):
    """A picture that is read where it is decoded; it must survive pickling."""

    def picture(self) -> bytes:
        """Return its bytes. Raises OSError."""


def prepare() -> None:
    """Start the process that decoders are forked from, which imports what they need meanwhile.

    Raises OSError where it cannot be started.
    """
    multiprocessing.get_context(START).set_forkserver_preload([__name__, "embedding.intake.image"])
    resource_tracker.ensure_running()  # whose own start would let Ctrl-C in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # every process inherits it
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Decoders:
    """So many processes, until `close`. Raises OSError where there is no memory to share with them."""

    def __init__(self, count: int, preprocess: Preprocess, limits: ImageLimits) -> None:
        context = multiprocessing.get_context(START)
        self._over = context.RawValue("b")  # no lock, which a process that is killed would keep
        large = context.Lock()
        start = (preprocess, limits, limits.max_memory_bytes // count, large, self._over)
        self._processes = ProcessPoolExecutor(count, context, _Decoder.start, start)

    def submit(self, pictures: Sequence[bytes | Readable]) -> Future[list[Decoded]]:
        """Return, in their order, what *pictures* will be: squares (S, S, 3) uint8, or why they are none.

        The future raises BrokenExecutor if a process is killed; no other is started then.
        """
        return self._processes.submit(_decode_all, pictures)

    def close(self) -> None:
        """Stop, after the pictures that are being decoded; what was submitted is dropped."""
        self._over.value = True
        self._processes.shutdown(cancel_futures=True)


class _Decoder:
    """What a process knows: set once, when it starts."""

    mine: _Decoder

    def __init__(
        self, preprocess: Preprocess, limits: ImageLimits, own_bytes: int, large: Lock, over: c_byte
    ) -> None:
        self._preprocess, self._limits = preprocess, limits
        self._own_bytes, self._large = own_bytes, large
        self.over = over

    @classmethod
    def start(cls, *known: Any) -> None:
        """Begin a process of the pool."""
        import torch  # noqa: PLC0415  in these processes alone

        threading.Thread(target=_end_with_parent, daemon=True).start()
        torch.set_num_threads(1)
        cls.mine = cls(*known)

    def decode(self, source: bytes | Readable) -> Decoded:
        from embedding.intake.image import decode_image  # noqa: PLC0415  imports torch

        try:
            data = source if isinstance(source, bytes) else source.picture()
            return decode_image(data, preprocess=self._preprocess, limits=self._limits, memory=self)
        except (WorkerError, OSError) as fault:
            return fault.with_traceback(None)

    @contextmanager
    def hold(self, size_bytes: int) -> Iterator[None]:
        """Hold memory for a picture: of large ones, of more than a process's share, one at a time."""
        if size_bytes <= self._own_bytes:
            yield
            return
        with self._large:
            yield


def _decode_all(pictures: Sequence[bytes | Readable]) -> list[Decoded]:
    mine = _Decoder.mine
    return [mine.decode(picture) for picture in pictures if not mine.over.value]


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
