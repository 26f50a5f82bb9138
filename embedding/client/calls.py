"""A call of many items as jobs: cut by count and bytes, several in flight, failures mended where they can be.

Items are read and encoded as their job's turn comes, in a thread, so that a call of a million paths, or of
what a generator yields, holds few pictures at a time. An item that fails for a reason that may pass is sent
again, without the others of its job; a job with more items than the worker takes, or which is too large for
something on its way there or back, is cut again, and later jobs are no larger than what a worker takes.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from embedding.client.errors import ItemError, JobFailed
from embedding.client.inputs import chunks, too_large, unreadable
from embedding.client.retries import full_jitter_s
from embedding.contract.encoding import DTYPES


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from embedding.client.embeddings import Collected
    from embedding.client.inputs import WireItem
    from embedding.contract.fields import EmbedDtype

    Numbered = list[tuple[int, WireItem]]

T = TypeVar("T")

ENVELOPE_BYTES: Final = 2_000  # around the items: options, signature and policy
TOO_MANY: Final = frozenset({"BATCH_TOO_LARGE", "RESPONSE_TOO_LARGE", "REQUEST_TOO_LARGE"})
OF_THE_CALLER: Final = frozenset({"AUTH_FAILED", "MODEL_MISMATCH"})  # every job would fail alike
UNSIGNED: Final = "this worker embeds nothing unsigned; give the worker's EMBEDDING_HMAC_SECRET as secret"
ITEM_ATTEMPTS: Final = 3
LIMIT: Final = re.compile(r"limit is (\d{1,9})")  # in what BATCH_TOO_LARGE says


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
    """How items are embedded, and how they travel; ValueError for a *dtype* that does not."""

    normalize: bool = True
    truncate: bool = True
    dtype: EmbedDtype = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be {' or '.join(DTYPES)}")

    def job_input(self, numbered: Numbered) -> dict[str, Any]:
        """Return the batch job of *numbered*."""
        return {
            "items": [item for _, item in numbered],
            "normalize": bool(self.normalize),
            "truncate": bool(self.truncate),
            "encoding_format": "base64",
            "embed_dtype": self.dtype,
        }


@dataclass(slots=True)
class Call:
    """One call: its jobs go over *transport*, at most *concurrency* at once, into *collected*.

    *max_items* are in a job; it falls to what the worker takes when that is less.
    """

    transport: Transport
    options: Options
    collected: Collected
    max_items: int
    concurrency: int

    async def embed(self, sources: Iterable[T], make_item: Callable[[T], WireItem]) -> None:
        """Embed all *sources*, each made an item by *make_item* as its turn comes.

        Raises a ClientError, or what *sources* or *make_item* raises; jobs in flight are cancelled then.
        """
        try:
            await self._embed(self._items(sources, make_item))
        except ExceptionGroup as failures:
            first = failures.exceptions[0]
            failures.__traceback__ = None
        else:
            return
        try:
            raise first
        finally:
            del first  # a frame and what it raises would hold each other, and a dropped client

    async def _embed(self, items: Iterator[tuple[int, WireItem]]) -> None:
        places = asyncio.Semaphore(self.concurrency)
        jobs = chunks(items, max_items=lambda: self.max_items, max_bytes=self._max_bytes)
        async with asyncio.TaskGroup() as group:
            is_last = False
            while not is_last:
                await places.acquire()
                job, is_last = await asyncio.to_thread(next, jobs, ([], True))
                if not job:
                    return
                task = group.create_task(self._run(job))
                task.add_done_callback(lambda _: places.release())

    @property
    def _max_bytes(self) -> int:
        return self.transport.max_request_bytes - ENVELOPE_BYTES

    def _items(
        self, sources: Iterable[T], make_item: Callable[[T], WireItem]
    ) -> Iterator[tuple[int, WireItem]]:
        for index, source in enumerate(sources):
            self.collected.count = index + 1
            try:
                item = make_item(source)
            except OSError as fault:
                self.collected.errors[index] = unreadable(index, fault)
                continue
            except (TypeError, ValueError) as fault:
                kind = TypeError if isinstance(fault, TypeError) else ValueError
                raise kind(f"item {index}: {fault}") from fault
            error = too_large(index, item, max_bytes=self._max_bytes)
            if error is None:
                yield index, item
            else:
                self.collected.errors[index] = error

    async def _run(self, numbered: Numbered) -> None:
        for sent in range(1, ITEM_ATTEMPTS + 1):
            again = await self._run_once(numbered)
            numbered = [(index, item) for index, item in numbered if index in again]
            if not numbered or sent == ITEM_ATTEMPTS:
                return
            await asyncio.sleep(full_jitter_s(sent))

    async def _run_once(self, numbered: Numbered) -> set[int]:
        """Run one job; return the items that may succeed if sent again."""
        indices = [index for index, _ in numbered]
        try:
            answer = await self.transport.run(self.options.job_input(numbered))
        except JobFailed as failure:
            if failure.code in OF_THE_CALLER:
                raise
            if failure.code in TOO_MANY and len(numbered) > 1:
                return await self._in_pieces(numbered, failure)
            for index in indices:
                self.collected.errors[index] = ItemError(
                    index, failure.code, failure.message, failure.retryable
                )
            return set()
        again = set(self.collected.add(indices, answer, self.options.dtype))
        if all(error and error.code == "AUTH_FAILED" for error in map(self.collected.errors.get, indices)):
            raise JobFailed("AUTH_FAILED", UNSIGNED, retryable=False)
        return again

    async def _in_pieces(self, numbered: Numbered, failure: JobFailed) -> set[int]:
        """Run the items of a job that was too large: in halves, or in as many as the worker says."""
        size = (len(numbered) + 1) // 2
        if failure.code == "BATCH_TOO_LARGE":
            told = LIMIT.search(failure.message)
            size = min(max(1, int(told[1])), size) if told else size
            self.max_items = min(self.max_items, size)
        again = set()
        for first in range(0, len(numbered), size):
            again |= await self._run_once(numbered[first : first + size])
        return again
