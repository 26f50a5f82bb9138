"""The flow of a run: rows in, as jobs to a backend, outcomes into parts; all of it bounded.

Rows are taken while the window has room, and while the rows of parts that are not written yet are few enough
to hold: one straggler stops the taking, and never fills the memory. All vectors of an output have one
fingerprint, which the first answer gives; another one ends the run, and so do workers that only fail.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from embedding.client.bulk.breaker import Breaker
from embedding.client.bulk.errors import writing
from embedding.client.bulk.parts import OpenPart
from embedding.client.bulk.walk import next_of
from embedding.client.errors import ClientError, ItemError


if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from embedding.client.bulk.folder import Model
    from embedding.client.bulk.parts import Outcome, Parts
    from embedding.client.bulk.rows import Row
    from embedding.client.bulk.walk import Taken, Walk
    from embedding.client.bulk.window import Window

OPEN_ROWS: Final = 131_072  # of parts under way: 256 MB of vectors of 512 numbers


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of the rows of a job, in order; *made_by* is None if none has a vector."""

    outcomes: Sequence[Outcome]
    made_by: Model | None


class Backend(Protocol):
    """What embeds rows."""

    window: Window

    async def embed(self, rows: Sequence[Row]) -> Answer:
        """Return what became of *rows*. Raises a ClientError that ends the run."""


class Watcher(Protocol):
    """Who is told how a run goes on."""

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Take note of rows that are done."""

    def skip(self, rows: int) -> None:
        """Take note of rows that were done before."""


@dataclass(slots=True)
class Flow:
    """One run. *on_model* is told what made vectors and how long they are, and may raise a BulkError."""

    walk: Walk
    backend: Backend
    parts: Parts
    part_rows: int
    dtype: str
    watcher: Watcher
    on_model: Callable[[Model, int], None]
    _breaker: Breaker = field(default_factory=Breaker)
    _open: dict[int, OpenPart] = field(default_factory=dict)
    _open_rows: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def run(self) -> None:
        """Embed all rows that are wanted, and write their parts. Raises a ClientError."""
        jobs = iter(self.walk)
        try:
            async with asyncio.TaskGroup() as group:
                while (taken := await next_of(jobs)) is not None:
                    self._note(taken)
                    if taken.rows:
                        await self._room(taken)
                        group.create_task(self._embed(taken))
            await self._write_whole()
        except ExceptionGroup as failures:
            _, unknown = failures.split(ClientError)
            raise (unknown or failures).exceptions[0] from None
        self._breaker.doubtful.clear()

    def drop_doubtful(self) -> None:
        """Drop parts with the failures that a run ended in before its time: the next tries them again."""
        for number in self._breaker.doubtful:
            self.parts.drop(number)

    def _note(self, taken: Taken) -> None:
        for number, row in taken.rows:
            part = self._open.setdefault(number // self.part_rows, OpenPart())
            part.rows[number] = (row.id, row.stamp)
        self._open_rows += len(taken.rows)
        self.watcher.skip(taken.skipped)
        for number, digests in taken.passed:
            if number in self._open:
                self._open[number].digests = digests

    async def _room(self, taken: Taken) -> None:
        """Wait until the job may start."""
        window, most = self.backend.window, max(OPEN_ROWS, 4 * self.part_rows)
        async with self._changed:
            await self._changed.wait_for(
                lambda: window.has_room(taken.wire_bytes) and self._open_rows <= most
            )
            window.enter(taken.wire_bytes)

    async def _embed(self, taken: Taken) -> None:
        try:
            wanted = [(number, row) for number, row in taken.rows if row.kind != "empty"]
            answer = await self.backend.embed([row for _, row in wanted]) if wanted else Answer([], None)
            self._check(answer)
            outcomes: dict[int, Outcome] = {
                number: ItemError(number, "INVALID_INPUT", "the cell is empty") for number, _ in taken.rows
            }
            for (number, _), outcome in zip(wanted, answer.outcomes, strict=True):
                outcomes[number] = outcome
            for number, outcome in outcomes.items():
                self._open[number // self.part_rows].outcomes[number] = outcome
            self.watcher.add(list(outcomes.values()))
            await self._write_whole()
        finally:
            async with self._changed:
                self.backend.window.leave(taken.wire_bytes)
                self._changed.notify_all()

    def _check(self, answer: Answer) -> None:
        self._breaker.note(answer.outcomes)
        if answer.made_by is not None:
            dim = next(len(outcome) for outcome in answer.outcomes if isinstance(outcome, np.ndarray))
            self.on_model(answer.made_by, dim)

    async def _write_whole(self) -> None:
        """Write every part that has all its outcomes."""
        whole = [number for number, part in self._open.items() if part.is_whole()]
        mine = [(number, self._open.pop(number)) for number in whole]  # before another job's end finds them
        for number, part in mine:
            self._breaker.note_part(number, part.outcomes.values())
            with writing("the next part"):
                await asyncio.to_thread(self._write, number, part)
            self._open_rows -= len(part.rows)

    def _write(self, number: int, part: OpenPart) -> None:
        assert part.digests is not None  # it is whole
        self.parts.write(number, part.closed(self.dtype), part.digests)
