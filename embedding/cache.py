"""What makes two inputs the same, which vectors are kept, and who waits for whose work.

A key is the SHA-256 of all that decides a vector and differs between items of one process: its kind, a
text's `truncate`, and the decoded bytes. Kinds and options stand in front, none the beginning of another,
so an image never has a text's key. Model, weights and preprocessing (the fingerprint) are the same for as
long as the process lives, and what is kept dies with it.

Kept vectors are bounded in bytes of memory; the one that was asked for longest ago goes first. An entry is
charged ENTRY_BYTES beside its numbers: digest, objects and its share of the table took 416 bytes of resident
memory at worst, just after the table had grown (1,000 to 100,000 entries of 512, 768 and 1,024 numbers,
CPython 3.11 on glibc).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar


if TYPE_CHECKING:
    from collections.abc import Coroutine

    import numpy as np
    import numpy.typing as npt

ENTRY_BYTES: Final = 512

T = TypeVar("T")


def image_key(data: bytes) -> bytes:
    """Return what all images of the bytes *data* have in common, and nothing else has: 32 bytes."""
    digest = hashlib.sha256(b"image:")
    digest.update(data)
    return digest.digest()


def text_key(text: str, truncate: bool) -> bytes:  # noqa: FBT001  run_in_executor knows no keywords
    """Return what all texts equal to *text* with the same *truncate* have in common: 32 bytes."""
    option = b"text, may be cut:" if truncate else b"text, whole:"
    return hashlib.sha256(option + text.encode(errors="surrogatepass")).digest()


@dataclass(frozen=True, slots=True)
class Vector:
    """What is kept of an input: features (D,) float32, not normalised, read-only; of a text, its tokens."""

    features: npt.NDArray[np.float32]
    tokens: int | None
    truncated: bool | None


class Cache:
    """Vectors by key, in at most *max_bytes* of memory. For one thread."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._vectors: OrderedDict[bytes, Vector] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._vectors)

    def get(self, key: bytes) -> Vector | None:
        """Return the vector kept under *key*, which is then the last to go."""
        vector = self._vectors.get(key)
        if vector is not None:
            self._vectors.move_to_end(key)
        return vector

    def put(self, key: bytes, vector: Vector) -> None:
        """Keep *vector* under *key*, in place of those asked for longest ago; one too large is not kept."""
        self._drop(key)
        if _size_bytes(vector) > self._max_bytes:
            return
        self._vectors[key] = vector
        self.bytes += _size_bytes(vector)
        while self.bytes > self._max_bytes:
            self._drop(next(iter(self._vectors)))

    def _drop(self, key: bytes) -> None:
        vector = self._vectors.pop(key, None)
        if vector is not None:
            self.bytes -= _size_bytes(vector)


def _size_bytes(vector: Vector) -> int:
    return vector.features.nbytes + ENTRY_BYTES


@dataclass(slots=True)
class Flight(Generic[T]):
    """Work in progress, and how many wait for it."""

    key: bytes
    task: asyncio.Task[T]
    waiters: int = 0


class Flights(Generic[T]):
    """Work that is done once for all who ask for it at the same time. For one event loop."""

    def __init__(self) -> None:
        self._flights: dict[bytes, Flight[T]] = {}

    def find(self, key: bytes) -> Flight[T] | None:
        """Return the work in progress under *key*."""
        flight = self._flights.get(key)
        return None if flight is None or flight.task.done() else flight

    def begin(self, key: bytes, work: Coroutine[Any, Any, T]) -> Flight[T]:
        """Start *work*, which others find under *key* until it ends, well or badly."""
        flight = self._flights[key] = Flight(key, asyncio.create_task(work))
        return flight

    async def wait(self, flight: Flight[T]) -> T:
        """Return what *flight* gives, or raise what it raises; if all who wait are cancelled, it is.

        Whoever finds or begins a flight waits for it before the loop does anything else.
        """
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)  # one cancelled waiter must not cancel the others
        finally:
            flight.waiters -= 1
            if flight.waiters == 0:
                self._end(flight)

    def _end(self, flight: Flight[T]) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
        flight.task.cancel()
        del flight.task  # it holds its error, whose traceback holds this flight and perhaps a large file
