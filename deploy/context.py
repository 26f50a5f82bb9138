"""What every command has at hand, made once from flags and the environment."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from deploy.api import Api
    from deploy.console import Console
    from deploy.records import Records


@dataclass(frozen=True, slots=True)
class Context:
    """The API, the terminal, the records, and the flags that most commands share.

    wait_s: how long workers and smoke test may take; poll_s: how often they are looked at.
    """

    api: Api
    console: Console
    records: Records
    environment: str
    environ: Mapping[str, str] = field(repr=False)
    wait_s: float
    poll_s: float
    yes: bool = False
    dry_run: bool = False
    endpoint_id: str | None = None
    summary: Path | None = None

    def lock(self) -> AbstractContextManager[None]:
        """Keep other commands of this machine from changing the environment; a dry run needs none."""
        return nullcontext() if self.dry_run else self.records.lock(self.console.say)

    def deadline(self) -> Deadline:
        """Return the end of the wait that begins now."""
        return Deadline.after(self.wait_s)


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point of the monotonic clock."""

    at_s: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the point that many seconds from now."""
        return cls(time.monotonic() + seconds)

    @property
    def left_s(self) -> float:
        """Seconds until then; 0 when it is over."""
        return max(0.0, self.at_s - time.monotonic())
