"""When a run stops: jobs fail one after another, and by their worker, so that the next would fail as well."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from embedding.client.bulk.errors import BulkError
from embedding.client.errors import TOLD_CHARS, ItemError


if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from embedding.client.bulk.parts import Outcome

JOBS: Final = 32
OF_THE_WORKER: Final = frozenset(
    {"INTERNAL_ERROR", "INFERENCE_ERROR", "OVERLOADED"}
    | {"JOB_FAILED", "JOB_TIMED_OUT", "JOB_CANCELLED", "JOB_LOST"}
)


@dataclass(slots=True)
class Breaker:
    """Counts *jobs* that failed in a row, as they end; *doubtful* are parts with failures of theirs."""

    jobs: int = 0
    doubtful: list[int] = field(default_factory=list)

    def note(self, outcomes: Sequence[Outcome]) -> None:
        """Take note of a job. Raises BulkError if it is one too many that failed by its worker alone."""
        if not outcomes:
            return
        if not all(map(_is_of_worker, outcomes)):
            self.jobs = 0
            self.doubtful.clear()
            return
        self.jobs += 1
        last = outcomes[-1]
        if self.jobs >= JOBS and isinstance(last, ItemError):
            told = " ".join(f"{last.code}: {last.message}".split())[:TOLD_CHARS]
            raise BulkError(
                f"{JOBS} jobs in a row failed by their worker, the last with {told}: see to the worker, "
                "and run the same command to go on"
            )

    def note_part(self, number: int, outcomes: Iterable[Outcome]) -> None:
        """Take note of a part that is written."""
        if self.jobs and any(map(_is_of_worker, outcomes)):
            self.doubtful.append(number)


def _is_of_worker(outcome: Outcome) -> bool:
    return isinstance(outcome, ItemError) and outcome.code in OF_THE_WORKER
