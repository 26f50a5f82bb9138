"""What a folder below one of the allowed roots holds, where nothing leads out of it.

A path is walked from its root one name at a time, each opened relative to the one before without following a
link, so neither `..` nor a link, nor one put there meanwhile, leads elsewhere: what is opened is what was
judged. Links are listed, never followed. Whatever cannot be opened gets one answer, so that nothing shows
about what lies outside. The roots themselves are the operator's, and may be links.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from embedding.errors import InvalidInput


if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_SCANNED: Final = 100_000  # entries of one folder; 10 to 100 MB while they are sorted
SCAN_S: Final = 10.0  # a network volume may take a millisecond for each entry
REFUSAL: Final = "path: no folder of that name is below one of the folders that may be listed"

_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    kind: str
    size_bytes: int
    modified: int

    def as_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {"name": printable(self.name), "modified": self.modified}
        if self.kind == "directory":
            return told
        told["size_bytes"] = self.size_bytes
        return told if self.kind == "file" else {**told, "kind": self.kind}


def list_files(path: str | None, roots: Sequence[str], *, limit: int, offset: int) -> dict[str, Any]:
    """Return what the folder *path* holds, plain JSON: *limit* entries from the *offset*th on.

    Folders come first, each kind by name. Without *path* the roots that are there are listed as folders.
    Totals are of the whole folder, without what lies below its folders; `complete` is false where it has more
    entries than MAX_SCANNED or takes longer than SCAN_S, and then they are of what was seen.
    Raises InvalidInput.
    """
    if path is None:
        entries, complete = _roots_there(roots), True
    else:
        with ExitStack() as opened:
            entries, complete = _scan(open_below(path, roots, opened))
    entries.sort(key=lambda entry: (entry.kind != "directory", entry.name))
    folders = sum(entry.kind == "directory" for entry in entries)
    shown = entries[offset : offset + limit]
    following = offset + len(shown)
    return {
        "status": "ok",
        "path": path,
        "directories": [entry.as_json() for entry in shown if entry.kind == "directory"],
        "files": [entry.as_json() for entry in shown if entry.kind != "directory"],
        "total_files": len(entries) - folders,
        "total_directories": folders,
        "total_bytes": sum(entry.size_bytes for entry in entries),
        "next_offset": following if following < len(entries) else None,
        "complete": complete,
    }


def open_below(path: str, roots: Sequence[str], opened: ExitStack) -> int:
    """Return a descriptor of the folder *path*, which *opened* closes. Raises InvalidInput."""
    root = _root_of(path, roots)
    if root is None:
        raise InvalidInput(REFUSAL)
    try:
        path.encode()  # a surrogate could name what is no text, but JSON would not carry it back
        folder = _kept(os.open(root or "/", _OPEN), opened)
        for name in path[len(root) :].split("/"):
            if not name:
                continue
            if name == "..":
                raise InvalidInput(REFUSAL)
            folder = _kept(os.open(name, _OPEN | os.O_NOFOLLOW, dir_fd=folder), opened)
    except (OSError, ValueError):  # a NUL, a surrogate
        raise InvalidInput(REFUSAL) from None
    return folder


def printable(name: str) -> str:
    """Return a name as the system gives it as text that JSON carries, bytes that are no UTF-8 escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _root_of(path: str, roots: Sequence[str]) -> str | None:
    """Return the longest of *roots* that *path* is, or lies below by its letters."""
    plain = [root.rstrip("/") for root in roots if root.startswith("/")]
    return max((root for root in plain if f"{path}/".startswith(f"{root}/")), default=None)


def _roots_there(roots: Sequence[str]) -> list[_Entry]:
    """Return those of *roots* that are folders, and can be asked."""
    entries = []
    for root in dict.fromkeys(roots):
        with suppress(OSError):
            about = Path(root).stat()
            if stat.S_ISDIR(about.st_mode):
                entries.append(_entry(str(Path(root)), about))
    return entries


def _kept(descriptor: int, opened: ExitStack) -> int:
    opened.callback(os.close, descriptor)
    return descriptor


def _scan(folder: int) -> tuple[list[_Entry], bool]:
    """Return the entries of *folder*, and whether these are all."""
    deadline_s = time.monotonic() + SCAN_S
    entries: list[_Entry] = []
    try:
        with os.scandir(folder) as found:
            for each in found:
                if len(entries) == MAX_SCANNED or time.monotonic() > deadline_s:
                    return entries, False
                try:
                    entries.append(
                        _entry(each.name, os.stat(each.name, dir_fd=folder, follow_symlinks=False))
                    )
                except FileNotFoundError:  # deleted meanwhile
                    continue
    except OSError:
        raise InvalidInput(REFUSAL) from None
    return entries, True


def _entry(name: str, about: os.stat_result) -> _Entry:
    kinds = {stat.S_IFDIR: "directory", stat.S_IFREG: "file", stat.S_IFLNK: "link"}
    kind = kinds.get(stat.S_IFMT(about.st_mode), "other")
    return _Entry(name, kind, about.st_size if kind == "file" else 0, int(about.st_mtime))
