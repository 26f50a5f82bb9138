"""A run ends when going on is of no use, in one line, and nothing of it is lost."""

from __future__ import annotations

import asyncio
import csv
from itertools import count
from typing import Self

import numpy as np
import pytest

from embedding.client.bulk import breaker, session
from embedding.client.bulk.errors import BulkError
from embedding.client.bulk.flow import OPEN_ROWS, Answer
from embedding.client.bulk.folder import Model, RunFolder
from embedding.client.bulk.rows import row_of_text
from embedding.client.errors import ClientError, ItemError, Unreachable
from tests.bulk.stand_in import StandIn, run, table


@pytest.fixture
def source(tmp_path):
    """Return a list of 200 texts."""
    path = tmp_path / "t.txt"
    path.write_text("".join(f"text {number}\n" for number in range(200)))
    return path


class Broken(StandIn):
    """A worker that fails with *code* from row *first* until row *last*; its jobs end in their order."""

    def __init__(self, first, last=1000, *, code="INFERENCE_ERROR", every=1) -> None:
        super().__init__(max_items=2)
        self._broken, self._code, self._every = range(first, last), code, every
        self._turn = asyncio.Lock()

    async def embed(self, rows):
        async with self._turn:
            answer = await super().embed(rows)
            numbers = [int(row.id.split()[1]) for row in rows]
            outcomes = [
                ItemError(0, self._code, "no kernel\nis there")
                if number in self._broken and number % self._every == 0
                else outcome
                for number, outcome in zip(numbers, answer.outcomes, strict=True)
            ]
        some = any(isinstance(outcome, np.ndarray) for outcome in outcomes)
        return Answer(outcomes, answer.made_by if some else None)


def failed(out):
    """Return the codes that the list of failed items beside *out* holds."""
    path = out.with_name(f"{out.name}.failed.csv")
    with path.open(newline="") as file:
        return [row["code"] for row in csv.DictReader(file)]


@pytest.mark.parametrize("code", sorted(breaker.OF_THE_WORKER))
def test_codes_that_end_a_run(code):
    """Every fault of a worker counts, and the last of as many jobs in a row ends the run."""
    counting = breaker.Breaker()
    for _ in range(breaker.JOBS - 1):
        counting.note([ItemError(0, code, "broken")] * 2)
    counting.note([])
    with pytest.raises(BulkError, match=f"the last with {code}: broken: see to the worker"):
        counting.note([ItemError(0, code, "broken")])


@pytest.mark.parametrize(("first", "code"), [(0, "JOB_FAILED"), (70, "INFERENCE_ERROR")])
def test_worker_that_only_fails(tmp_path, source, first, code):
    """A run whose jobs all fail by their worker ends, and the next embeds every row of those jobs."""
    out = tmp_path / "o.parquet"
    with pytest.raises(BulkError) as ended:
        run(out, source, backend=Broken(first, code=code), part_rows=8)
    assert str(ended.value) == (
        f"32 jobs in a row failed by their worker, the last with {code}: no kernel is there: "
        "see to the worker, and run the same command to go on"
    )
    assert RunFolder(out).parts.numbers() == list(range(first // 8))
    result, _ = run(out, source, part_rows=8)

    assert (result.rows, dict(result.failed)) == (200, {})
    assert table(out)[0] == source.read_text().splitlines()


def test_retry_by_a_worker_that_only_fails(tmp_path, source):
    """A retry that ends so goes on as well, and mends every row."""
    out = tmp_path / "o.parquet"
    run(out, source, backend=StandIn(failing=("text",)), part_rows=8)
    with pytest.raises(BulkError, match="32 jobs in a row"):
        run(out, source, backend=Broken(0), part_rows=8, is_retry=True)
    run(out, source, part_rows=8, is_retry=True)

    assert table(out)[0] == source.read_text().splitlines()


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (Broken(0, 62), 62),  # 31 jobs
        (Broken(138), 62),  # the last 31 jobs
        (Broken(0, every=2), 100),  # one row of each job
        (Broken(0, code="DECODE_ERROR"), 200),
    ],
)
def test_failures_that_are_listed(tmp_path, source, broken, expected):
    """Fewer jobs, rows beside others that have vectors, and faults of the rows themselves are listed."""
    out = tmp_path / "o.parquet"
    run(out, source, backend=broken, part_rows=8)

    assert len(failed(out)) == expected


def test_ended_otherwise_after_failures_of_a_worker(tmp_path, source):
    """Rows that a worker failed just before the run ended are tried again by the next."""

    class Gone(Broken):
        async def embed(self, rows):
            if rows[0].id == "text 40":
                raise Unreachable("gone")
            return await super().embed(rows)

    out = tmp_path / "o.parquet"
    with pytest.raises(Unreachable):
        run(out, source, backend=Gone(20), part_rows=4)
    result, _ = run(out, source, part_rows=4)

    assert not result.failed


def test_vectors_of_another_length(tmp_path, source):
    """Vectors of two lengths never meet in one output, whatever their fingerprint."""

    class Longer(StandIn):
        async def embed(self, rows):
            vectors = [np.ones(7 if row.id == "text 99" else 6, np.float32) for row in rows]
            return Answer(vectors, Model("one", None))

    with pytest.raises(
        BulkError, match=r"vectors of [67] numbers come from fingerprint one, and of [67] bef"
    ):
        run(tmp_path / "o.npy", source, backend=Longer(max_items=1))


@pytest.mark.parametrize(
    ("raised", "told"), [([Unreachable, BulkError], ClientError), ([Unreachable, KeyError], KeyError)]
)
def test_several_ends_at_once(tmp_path, source, raised, told):
    """Of faults that end a run together one is told, and first one that should never be."""

    class Ending(StandIn):
        both = asyncio.Barrier(2)

        async def embed(self, _):
            place = await self.both.wait()
            raise raised[place]("ended")

    with pytest.raises(told, match="ended"):
        run(tmp_path / "o.npy", source, backend=Ending())


def test_interrupted_while_it_walks(tmp_path, monkeypatch):
    """A walk of many rows that nobody waits for any longer ends at once."""

    class Interrupted(StandIn):
        async def __aenter__(self) -> Self:
            self.loop, self.task = asyncio.get_running_loop(), asyncio.current_task()
            return self

    def rows(*_):
        for number in count():
            if number == 1000:
                backend.loop.call_soon_threadsafe(backend.task.cancel)
            walked[0] = number
            if number == most:
                return
            yield row_of_text("text", "text")

    walked, most, backend, out = [0], 5_000_000, Interrupted(), tmp_path / "o.npy"
    (tmp_path / "t.txt").write_text("text\n")
    run(out, tmp_path / "t.txt", backend=StandIn(failing=("text",)))
    monkeypatch.setattr(session, "rows_of", rows)
    monkeypatch.setattr(session, "check_source", lambda *_: None)  # a walk of its own
    with pytest.raises(asyncio.CancelledError):
        run(out, tmp_path / "t.txt", backend=backend, is_retry=True)

    assert walked[0] < most


def test_straggler(tmp_path, monkeypatch):
    """While one job takes long, no more rows are taken than may be held."""

    class Slow(StandIn):
        last = 0

        async def embed(self, rows):
            self.last = max(self.last, int(rows[-1].id))
            if rows[0].id == "0":
                while self.last + 1 < most:
                    await asyncio.sleep(0)
                await asyncio.sleep(0.1)
                self.at_most = self.last
            return Answer([np.ones(2, np.float32)] * len(rows), Model("one", None))

    most = 400
    monkeypatch.setattr("embedding.client.bulk.flow.OPEN_ROWS", most)
    (tmp_path / "t.txt").write_text("".join(f"{number}\n" for number in range(4 * most)))
    backend = Slow(max_items=10)
    run(tmp_path / "o.npy", tmp_path / "t.txt", backend=backend, part_rows=100)

    assert most < OPEN_ROWS
    assert len(np.load(tmp_path / "o.npy")) == 4 * most
