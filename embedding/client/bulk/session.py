"""One call of `embed`: what is begun, gone on with, retried or refused, and what is left at the end."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final

from embedding.client.bulk.arrow import parquet
from embedding.client.bulk.errors import BulkError, writing
from embedding.client.bulk.existing import (
    check_list,
    check_source,
    listed,
    must_be_files,
    must_be_ours,
    must_be_same,
    must_be_source_of,
    output_of,
    own_paths,
)
from embedding.client.bulk.flow import Flow
from embedding.client.bulk.formats import format_of
from embedding.client.bulk.merge import Made, publish
from embedding.client.bulk.sources import STDIN, Reading, check, count_rows, rows_of
from embedding.client.bulk.walk import Walk


if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from embedding.client.bulk.folder import Model, RunFolder
    from embedding.client.bulk.progress import Progress

PART_ROWS: Final = 4096
FORMAT: Final = 2  # of the folder of parts and of what an output says of itself


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be made: the sources and how they are read, the output, and what of it is wanted now."""

    sources: tuple[str, ...]
    reading: Reading
    out: Path
    dtype: str
    part_rows: int = PART_ROWS
    is_retry: bool = False
    is_restart: bool = False

    def reads(self) -> Reading:
        """Return how the sources are read: without what the run itself writes."""
        return replace(self.reading, own=own_paths(self.out, format_of(self.out)))

    def identity(self) -> dict[str, Any]:
        """Return what decides which row stands where, and as what: only parts of one identity may meet."""
        return {
            "format": FORMAT,
            "sources": list(self.sources),
            "as": self.reading.how,
            "column": self.reading.column,
            "id_column": self.reading.id_column,
            "dtype": self.dtype,
            "part_rows": self.part_rows,
        }


@dataclass(frozen=True, slots=True)
class Result:
    """What a call left: what the output says of itself, and how many rows failed, by code."""

    about: dict[str, Any]
    failed: Counter[str]
    took_s: float
    embedded_now: int

    @property
    def rows(self) -> int:
        """How many rows the source has."""
        return int(self.about["rows"])


class Session:
    """Carries out *order* within *folder*, whose lock is held."""

    def __init__(self, order: Order, folder: RunFolder) -> None:
        self._order, self._folder = order, folder
        self._formats = format_of(order.out)
        self._reading = order.reads()
        self._run: dict[str, Any] = {}
        self._earlier: dict[str, Any] | None = None

    def prepare(self) -> bool:
        """Return whether there is anything to do. Raises BulkError if it would mix with what is there."""
        parquet()  # of which parts are, whatever the output is
        order, folder = self._order, self._folder
        with writing(folder.path), suppress(BulkError) if order.is_restart else nullcontext():
            folder.finish()
        must_be_files(order.out, self._formats)
        check(order.sources, self._reading)
        run = None if order.is_restart else folder.run()
        if run is not None and not run["restart"] and not folder.parts.numbers():
            run = None  # nothing is done of it that another could mix with
        self._earlier = None if order.is_restart else output_of(order.out, self._formats)
        if run is not None:
            self._go_on(run)
            return True
        with writing(folder.path):
            folder.clear()
        return self._begin()

    def _begin(self) -> bool:
        """Begin a run where there is none, and return whether there is anything to do."""
        order = self._order
        if not order.is_restart:
            must_be_ours(order.out, self._formats)
        if self._earlier is not None and not self._may_follow(self._earlier):
            return False
        if order.is_retry and self._earlier is None:
            raise BulkError("--retry-failed: there is no output yet; run without it first")
        earlier = self._earlier or {}
        self._run = {
            "identity": order.identity(),
            "restart": order.is_restart,
            "retry": order.is_retry,
            "of": earlier.get("failures_digest"),
            "made_by": earlier.get("made_by"),
        }
        return True

    def _go_on(self, run: dict[str, Any]) -> None:
        """Take up *run*, which was begun before."""
        must_be_same(run["identity"], self._order.identity(), "a run was begun")
        if run["retry"] and not self._order.is_retry:
            raise BulkError("a retry was begun and is not done: go on with --retry-failed, or --restart")
        if self._order.is_retry and not run["retry"]:
            raise BulkError("--retry-failed: the run is not done yet; go on without it first")
        if run["retry"]:
            self._must_be_retried(run)
        elif not run["restart"]:
            must_be_ours(self._order.out, self._formats)
        self._run = run

    def _must_be_retried(self, run: dict[str, Any]) -> None:
        """Raise BulkError unless the output that *run* retries is there, with its list and its source."""
        out, earlier = self._order.out, self._earlier
        if earlier is None or earlier["failures_digest"] != run["of"]:
            raise BulkError(f"{out} is not what this retry was begun with: put that back, or --restart")
        check_list(out, earlier)
        if STDIN not in self._order.sources:
            self._check_source(earlier)

    def _may_follow(self, earlier: dict[str, Any]) -> bool:
        """Return whether a retry may follow the output that is there; False if it is just what is wanted."""
        out = self._order.out
        must_be_same(earlier["identity"], self._order.identity(), f"{out} was made")
        check_list(out, earlier)
        is_retry = self._order.is_retry and earlier["failed"] > 0
        if not is_retry or STDIN not in self._order.sources:  # which the retry itself reads, once
            self._check_source(earlier)
        return is_retry

    def _check_source(self, earlier: dict[str, Any]) -> None:
        rows = rows_of(self._order.sources, self._reading)
        check_source(self._order.out, earlier, rows, self._folder.parts)

    def _drop_unless_source(self, walk: Walk, earlier: dict[str, Any]) -> None:
        """Raise BulkError, and drop the retry, unless *walk* went over what *earlier* was made of."""
        try:
            must_be_source_of(self._order.out, earlier, walk)
        except BulkError:
            with writing(self._folder.path):
                self._folder.clear()
            raise

    def _save(self) -> None:
        with writing(self._folder.path):
            self._folder.write_run(self._run)

    def result(self) -> Result:
        """Return what is there of an order that leaves nothing to do."""
        return self._left(0.0, 0)

    def _left(self, took_s: float, embedded: int) -> Result:
        about = self._formats.about(self._order.out) or {}
        failed = Counter(failure.code for failure in listed(self._order.out, about))
        return Result(about, failed, took_s, embedded)

    def run(self, backend: Any, progress: Progress) -> Result:
        """Embed what is missing and make the output. Raises a ClientError; what is done is kept then."""
        order = self._order
        self._save()
        earlier = self._earlier or {}
        over = threading.Event()  # a walk in a thread ends by it, since nothing else ends a thread
        walk = Walk(
            takewhile(lambda _: not over.is_set(), rows_of(order.sources, self._reading)),
            self._folder.parts,
            order.part_rows,
            backend.max_items,
            backend.max_bytes,
            listed(order.out, earlier) if order.is_retry else None,
        )
        flow = Flow(walk, backend, self._folder.parts, order.part_rows, order.dtype, progress, self._meet)
        try:
            asyncio.run(_run(flow, backend, progress, over))
        finally:
            flow.drop_doubtful()
        if order.is_retry:
            self._drop_unless_source(walk, earlier)
        made_by = self._run["made_by"] or {}
        about = {
            "identity": order.identity(),
            "source_digest": walk.digests.now,
            "made_by": self._run["made_by"],
            "fingerprint": made_by.get("fingerprint"),
            "model": made_by.get("model"),
            "dim": made_by.get("dim", 0),
            "dtype": order.dtype,
        }
        publish(
            self._folder, self._formats, Made(walk.count, order.part_rows, about), is_retry=order.is_retry
        )
        return self._left(progress.took_s, progress.done)

    def _meet(self, model: Model, dim: int) -> None:
        """Keep what made the first vector, or hold it against what made those that are there."""
        known = self._run["made_by"]
        if known is None:
            self._run["made_by"] = {"fingerprint": model.fingerprint, "model": model.model, "dim": dim}
            self._save()
        elif known["fingerprint"] != model.fingerprint:
            raise BulkError(
                f"fingerprint {model.fingerprint} answers, and this output was begun with "
                f"{known['fingerprint']}: serve that model again, begin anew with --restart, or give another "
                "--out"
            )
        elif known["dim"] != dim:
            raise BulkError(
                f"vectors of {dim} numbers come from fingerprint {model.fingerprint}, and of {known['dim']} "
                "before: these are two models, and one of them is served under the other's name"
            )


async def _run(flow: Flow, backend: Any, progress: Progress, over: threading.Event) -> None:
    async with backend:
        telling = asyncio.ensure_future(progress.tell())
        try:
            await flow.run()
        finally:
            over.set()
            telling.cancel()
            await asyncio.wait([telling])


def counter(order: Order) -> Callable[[], int] | None:
    """Return what counts the rows of *order*, in a walk of its own; None where they can be read only once."""
    if STDIN in order.sources or order.is_retry:
        return None
    return lambda: count_rows(order.sources, order.reads())
