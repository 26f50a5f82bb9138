"""One row of a source: what it is called, what is to be embedded, and what tells that it is still the same.

A picture that lies in a file, or inside an archive, is read when its turn comes, so a row is small.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from embedding.client.inputs import image_item, is_web


if TYPE_CHECKING:
    from embedding.client.inputs import WireItem

Kind = Literal["file", "bytes", "url", "text", "empty"]
As = Literal["auto", "image", "text"]

MAX_PICTURE_BYTES: Final = 512 << 20  # what a worker may at most be told to take
MAX_TEXT_CHARS: Final = 10_000_000  # fewer make a line, its end included; a worker's limit is lower
PICTURES: Final = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif"})


@dataclass(frozen=True, slots=True)
class Row:
    """A row. *value* is a path, a picture's bytes, a URL or a text, by *kind*; "empty" has none.

    Of a file the *size_bytes* from *start* are the picture. *stamp* is what else must be as it was when a run
    goes on: size and time of a file.
    """

    id: str
    kind: Kind
    value: str | bytes = ""
    start: int = 0
    size_bytes: int = 0
    stamp: str = ""

    def wire_bytes(self) -> int:
        """Return how many bytes of JSON the row takes in a job, about."""
        if self.kind in ("file", "bytes"):
            return self.size_bytes * 4 // 3 + 100
        return 2 * self.size_bytes + 100

    def picture(self) -> bytes:
        """Return the bytes of a picture.

        Raises OSError if its file cannot be read, has become shorter, or is too large for any worker.
        """
        if isinstance(self.value, bytes):
            return self.value
        if self.size_bytes > MAX_PICTURE_BYTES:
            raise OSError(
                errno.EFBIG, f"its {self.size_bytes:,} bytes are too many for any worker", self.value
            )
        descriptor = _opened(self.value)
        try:
            data = os.pread(descriptor, self.size_bytes, self.start)
        finally:
            os.close(descriptor)
        if not self.size_bytes:
            raise OSError(errno.EINVAL, "it is empty, or no regular file", self.value)
        if len(data) != self.size_bytes:
            raise OSError(errno.EIO, "it is shorter than it was", self.value)
        return data

    def wire_item(self) -> WireItem:
        """Return the row as an item of a job. Raises OSError as `picture` does."""
        if self.kind == "text":
            return {"text": self.value}
        return {"image_url": self.value} if self.kind == "url" else image_item(self.picture())


def _opened(path: str) -> int:
    """Return a descriptor of the file at *path*; a pipe that nobody writes to is not waited for."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # 2.7 us with reading, a file object 4.8
    except ValueError as fault:
        raise OSError(errno.EINVAL, str(fault), path) from None


def as_bytes(text: str) -> bytes:
    """Return *text* in UTF-8; the name of a file, which need not be, as its own bytes."""
    return text.encode(errors="surrogateescape")


def row_of_text(value: str, how: As, *, name: str | None = None) -> Row:
    """Return the row of a line or a cell: a URL, or a text; where *how* is "image", a URL or a path.

    Its id is *name*, else *value* itself.
    """
    row_id = value if name is None else name
    if not value:
        return Row(row_id, "empty")
    is_url = is_web(value)
    if how == "text" or (how == "auto" and not is_url):
        return Row(row_id, "text", value, size_bytes=len(as_bytes(value)))
    return Row(row_id, "url", value, size_bytes=len(value)) if is_url else row_of_file(value, row_id)


def row_of_file(path: str, name: str) -> Row:
    """Return the row of a picture's file; one that is not there is read, and fails, when its turn comes."""
    try:
        status = os.stat(path)  # noqa: PTH116  a Path for each costs
    except (OSError, ValueError):  # a path may hold a null character
        return Row(name, "file", path)
    stamp = f"{status.st_size} {status.st_mtime_ns}"
    return Row(name, "file", path, size_bytes=status.st_size, stamp=stamp)


def row_of_bytes(data: bytes | None, name: str) -> Row:
    """Return the row of a picture's bytes."""
    return Row(name, "bytes", data, size_bytes=len(data)) if data else Row(name, "empty")
