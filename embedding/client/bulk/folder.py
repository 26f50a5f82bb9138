"""The folder beside an output that holds a run until it is done: parts, what the run is, and its lock.

One run at a time holds the lock; the kernel gives it back when a process ends, however that ends. `run.json`
says what is being made, so that parts of two different runs never meet. The finished files wait in `final`;
once `ready` lists them they are only renamed and the folder removed, and whoever finds it does the rest.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from embedding.client.bulk.errors import BulkError, writing
from embedding.client.bulk.parts import Parts, sync_folder


if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

LOCK: Final = "lock"
RUN: Final = "run.json"
READY: Final = "ready"
FINAL: Final = "final"
RUN_KEYS: Final = frozenset({"identity", "restart", "retry", "of", "made_by"})
READY_KEYS: Final = frozenset({"names", "removing"})


@dataclass(frozen=True, slots=True)
class Model:
    """What made the vectors."""

    fingerprint: str
    model: str | None


class RunFolder:
    """The folder of the run that makes *out*: a context that holds its lock, or raises BulkError."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.path = out.with_name(folder_name(out))
        self.parts = Parts(self.path)
        self._lock: int | None = None

    def __enter__(self) -> Self:
        if self.path.exists() and not self.path.is_dir():
            raise BulkError(f"{self.path} is there, and no folder: move it, or give another --out")
        with writing(self.path):
            while self._lock is None:
                self.path.mkdir(exist_ok=True)
                with suppress(FileNotFoundError):  # a run that has just ended took the folder with it
                    self._lock = self._locked()
        return self

    def _locked(self) -> int | None:
        descriptor = os.open(self.path / LOCK, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise BulkError(
                f"another run is writing {self.out}: wait for it, or give another --out"
            ) from None
        if os.fstat(descriptor).st_nlink == 0:
            os.close(descriptor)
            return None
        return descriptor

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not (self.path / RUN).exists() and not (self.path / READY).exists():
            self._remove()
        if self._lock is not None:
            os.close(self._lock)

    def run(self) -> dict[str, Any] | None:
        """Return what this folder's run is, None if it holds none."""
        return self._said(RUN, RUN_KEYS)

    def _said(self, name: str, keys: frozenset[str]) -> dict[str, Any] | None:
        """Return what the file *name* holds, None if it is not there. Raises BulkError if it lacks *keys*."""
        path = self.path / name
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            said = None
        if not isinstance(said, dict) or not keys <= said.keys():
            raise BulkError(f"{path} is damaged: --restart begins anew")
        return said

    def write_run(self, run: dict[str, Any]) -> None:
        """Write what this folder's run is. Raises OSError."""
        write_durably(self.path / RUN, json.dumps(run, indent=1))

    def clear(self) -> None:
        """Drop the run that this folder holds, and last what says which: its parts never meet another's."""
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in (LOCK, RUN):
                path.unlink()
        sync_folder(self.path)
        (self.path / RUN).unlink(missing_ok=True)

    def final(self) -> Path:
        """Return the folder in which the finished files are made; empty."""
        folder = self.path / FINAL
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def publish(self, *, removing: list[str]) -> None:
        """Put all files of `final` in their places, drop those named *removing*, and then this folder."""
        names = sorted(path.name for path in (self.path / FINAL).iterdir())
        sync_folder(self.path / FINAL)
        write_durably(self.path / READY, json.dumps({"names": names, "removing": removing}))
        self.finish()

    def finish(self) -> None:
        """Do what is left of a `publish` that was begun. Raises OSError."""
        ready = self._said(READY, READY_KEYS)
        if ready is None:
            return
        for name in ready["names"]:
            with suppress(FileNotFoundError):
                (self.path / FINAL / name).replace(self.out.with_name(name))
        for name in ready["removing"]:
            self.out.with_name(name).unlink(missing_ok=True)
        sync_folder(self.out.parent)
        for path in self.path.iterdir():
            if path.name not in (LOCK, READY, FINAL):
                path.unlink()
        with suppress(FileNotFoundError):
            (self.path / FINAL).rmdir()
        sync_folder(self.path)  # what says how to end goes last, on a disk that loses its power as well
        (self.path / READY).unlink()

    def _remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def folder_name(out: Path) -> str:
    """Return the name of the folder beside *out*."""
    return f"{out.name}.parts"


def write_durably(path: Path, text: str) -> None:
    """Write *text* into *path* at once or not at all."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)
