"""What was applied when, and how it went: `.deploy/ENV.jsonl`, the memory that a rollback needs.

Each apply has an id. It adds a line before the first request is sent, another when RunPod has taken or
refused it, and another when its smoke test has ended; the later line of an id counts. A line is written
whole, under a lock, and is on the disk before the command goes on. Secrets are in it by name only. Files of
one name in two folders share it, so who reads it asks for an endpoint's name. Where it is lost, RunPod's
releases still tell the images.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from deploy.errors import DeployError


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from deploy.api import Json
    from deploy.config import Config

SENT: Final = "sent"  # whether it took effect is not known
REFUSED: Final = "refused"
APPLIED: Final = "applied"
PASSED: Final = "smoke passed"
FAILED: Final = "smoke failed"


@dataclass(frozen=True, slots=True)
class Record:
    """One apply. *config* is the whole configuration as JSON; *outcome* how far it came.

    endpoint_id: empty until it is created; back_to: the record that a rollback went to.
    """

    id: str
    time: str
    endpoint_id: str
    image: str
    digest: str | None
    commit: str | None
    config: dict[str, Any]
    outcome: str
    back_to: str | None = None

    def told(self, outcome: str, *, commit: str | None = None, endpoint_id: str | None = None) -> Record:
        """Return the record with a later outcome, and what became known with it."""
        return replace(
            self,
            outcome=outcome,
            commit=commit or self.commit,
            endpoint_id=endpoint_id or self.endpoint_id,
        )


class Records:
    """The records of one environment in a folder of its own making."""

    def __init__(self, folder: Path, environment: str) -> None:
        self._path = folder / f"{environment}.jsonl"
        self._lock_path = folder / f"{environment}.lock"

    @contextmanager
    def lock(self, notice: Callable[[str], None]) -> Iterator[None]:
        """Let no other command of this machine change the environment meanwhile; wait for one that does."""
        try:
            self._lock_path.parent.mkdir(parents=True, exist_ok=True)
            file = self._lock_path.open("a", encoding="utf-8")
        except OSError as fault:
            raise DeployError(
                f"the records cannot be kept: {fault.strerror}", hint="give --records DIR"
            ) from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                notice("another command changes this environment; waiting until it has ended")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def add(self, record: Record) -> None:
        """Append *record*; it is on the disk when this returns."""
        line = json.dumps(asdict(record)) + "\n"
        with self._path.open("a+b") as file:
            if file.tell() and not _ends_whole(file.fileno()):
                line = "\n" + line
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    def all(self) -> list[Record]:
        """Return the records, oldest first, each as it was last told; a torn line is left out."""
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").split("\n")
        except FileNotFoundError:
            return []
        found: dict[str, Record] = {}
        for line in lines:
            try:
                record = Record(**json.loads(line))
            except (ValueError, TypeError):
                continue
            found[record.id] = record
        return list(found.values())

    def of(self, name: str | None) -> list[Record]:
        """Return the records of the endpoint called *name*; None: of the only name that there is."""
        found = self.all()
        names = sorted({str(record.config.get("name")) for record in found})
        if name is None and len(names) > 1:
            raise DeployError(
                f"the records are of {len(names)} endpoints: {', '.join(names)}",
                hint="mend the environment's file, which says whose are meant",
            )
        return [record for record in found if name in {None, record.config.get("name")}]


def new_record(config: Config, endpoint: Json | None, commit: str | None, back_to: str | None) -> Record:
    """Return the record of an apply of *config*, to *endpoint* where there is one, that will now be sent."""
    now = datetime.now(UTC)
    return Record(
        id=f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
        time=now.isoformat(timespec="seconds"),
        endpoint_id=endpoint["id"] if endpoint else "",
        image=config.image,
        digest=config.digest,
        commit=commit,
        config=as_json(config),
        outcome=SENT,
        back_to=back_to,
    )


def as_json(config: Config) -> dict[str, Any]:
    """Return a configuration as a record keeps it: without what was left out."""
    return config.model_dump(mode="json", exclude_none=True)


def _ends_whole(descriptor: int) -> bool:
    """Return whether the file's last line was finished: a process killed while it wrote leaves a part."""
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, 1, size - 1) == b"\n"
