"""A call of many items as jobs: cut by count and bytes, several in flight, failures mended where they can be.

Items are read and encoded as their job's turn comes, in a thread, so that a call of a million paths holds
few pictures at a time. An item that fails for a reason that may pass is sent again, without the others of its
job; a job with more items than the worker takes, or whose answer would be too large, is halved.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from embedding.client.errors import ClientError, ItemError, JobFailed
from embedding.client.inputs import chunks, too_large, unreadable


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from embedding.client.embeddings import Collected
    from embedding.client.inputs import WireItem
    from embedding.contract.requests import EmbedDtype

    Numbered = list[tuple[int, WireItem]]

T = TypeVar("T")

ENVELOPE_BYTES: Final = 2_000  # around the items: options and signature
TOO_MANY: Final = frozenset({"BATCH_TOO_LARGE", "RESPONSE_TOO_LARGE"})
OF_THE_CALLER: Final = frozenset({"AUTH_FAILED", "MODEL_MISMATCH"})  # every job would fail alike
ITEM_ATTEMPTS: Final = 3


class Transport(Protocol):
    """What carries the input of a job to a worker and its output back."""

    max_request_bytes: int

    async def run(self, job_input: Mapping[str, Any]) -> Any:
        """Return the output of a job. Raises a ClientError."""

    async def health(self) -> Any:
        """Return what the worker says of itself. Raises a ClientError."""

    async def aclose(self) -> None:
        """Close all connections."""


@dataclass(frozen=True, slots=True)
class Options:
    """How items are embedded, and how they travel."""

    normalize: bool = True
    truncate: bool = True
    dtype: EmbedDtype = "float32"

    def job_input(self, numbered: Numbered) -> dict[str, Any]:
        """Return the batch job of *numbered*."""
        return {
            "items": [item for _, item in numbered],
            "normalize": self.normalize,
            "truncate": self.truncate,
            "encoding_format": "base64",
            "embed_dtype": self.dtype,
        }


@dataclass(frozen=True, slots=True)
class Call:
    """One call: its jobs go over *transport*, at most *concurrency* at once, into *collected*."""

    transport: Transport
    options: Options
    collected: Collected
    max_items: int
    concurrency: int

    async def embed(self, sources: Sequence[T], make_item: Callable[[T], WireItem]) -> None:
        """Embed all *sources*, each made an item by *make_item* as its turn comes. Raises a ClientError."""
        places = asyncio.Semaphore(self.concurrency)
        jobs = chunks(self._items(sources, make_item), max_items=self.max_items, max_bytes=self._max_bytes)
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await places.acquire()
                    job = await asyncio.to_thread(next, jobs, None)
                    if job is None:
                        break
                    task = group.create_task(self._run(job))
                    task.add_done_callback(lambda _: places.release())
        except* ClientError as failures:
            raise failures.exceptions[0] from None

    @property
    def _max_bytes(self) -> int:
        return self.transport.max_request_bytes - ENVELOPE_BYTES

    def _items(
        self, sources: Sequence[T], make_item: Callable[[T], WireItem]
    ) -> Iterator[tuple[int, WireItem]]:
        for index, source in enumerate(sources):
            try:
                item = make_item(source)
            except OSError as fault:
                self.collected.errors[index] = unreadable(index, fault)
                continue
            error = too_large(index, item, max_bytes=self._max_bytes)
            if error is None:
                yield index, item
            else:
                self.collected.errors[index] = error

    async def _run(self, numbered: Numbered) -> None:
        for attempt in range(1, ITEM_ATTEMPTS + 1):
            again = await self._run_once(numbered)
            numbered = [(index, item) for index, item in numbered if index in again]
            if not numbered or attempt == ITEM_ATTEMPTS:
                return
            await asyncio.sleep(0.5 * attempt)

    async def _run_once(self, numbered: Numbered) -> set[int]:
        """Run one job; return the items that may succeed if sent again."""
        indices = [index for index, _ in numbered]
        try:
            answer = await self.transport.run(self.options.job_input(numbered))
        except JobFailed as failure:
            if failure.code in OF_THE_CALLER:
                raise
            if failure.code in TOO_MANY and len(numbered) > 1:
                middle = len(numbered) // 2
                return await self._run_once(numbered[:middle]) | await self._run_once(numbered[middle:])
            for index in indices:
                self.collected.errors[index] = ItemError(
                    index, failure.code, failure.message, failure.retryable
                )
            return set()
        return set(self.collected.add(indices, answer, self.options.dtype))
