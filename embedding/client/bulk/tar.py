"""An archive's samples as rows, header by header: nothing is extracted, and no header is kept.

A WebDataset holds three members for a picture, and the tarfile module takes 16 us for each: a fifth of what a
small picture costs in all. So the plainest headers are read here, and whatever is unusual in one, a long or
foreign name, a size in binary, a wrong checksum, the end, is left to tarfile.
"""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from embedding.client.bulk.errors import BulkError
from embedding.client.bulk.rows import MAX_TEXT_CHARS, PICTURES, Row, row_of_text


if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedding.client.bulk.rows import As

# Where the fields of a header stand (POSIX.1-2001, "ustar Interchange Format").
BLOCK_BYTES: Final = 512
NAME, SIZE, MTIME, CHECKSUM, PREFIX = (
    slice(0, 100),
    slice(124, 136),
    slice(136, 148),
    slice(148, 156),
    slice(345, 500),
)
TYPE: Final = 156
REGULAR: Final = ord("0")
BLANK_CHECKSUM: Final = 8 * ord(" ")  # its own field counts as blanks


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive, whose *size_bytes* lie from *start*."""

    name: str
    start: int
    size_bytes: int
    mtime: float


def tar_rows(path: str, how: As) -> Iterator[Row]:
    """Yield a row for each sample of a tar: members of one key, which is the name up to its first dot.

    The picture of a sample counts, else its text; *how* may ask for one of them alone. Raises BulkError.
    """
    when = Path(path).stat().st_mtime_ns
    sample: list[Member] = []
    key = None
    members = _members(path)
    for member in members:
        its_key = _key(member.name)
        if its_key != key:
            yield from _sample(path, sample, how, when)
            sample, key = [], its_key
        sample.append(member)
    yield from _sample(path, sample, how, when)


def _members(path: str) -> Iterator[Member]:
    """Yield the regular files of an archive."""
    try:
        with tarfile.open(path, "r:") as archive:
            assert archive.fileobj is not None
            archive.offset = 0
            archive.firstmember = None  # type: ignore[attr-defined]  # it was read to see whether this is a tar
            while True:
                member = None if archive.pax_headers else _plain(archive)
                if member is not None:
                    yield member
                    continue
                archive.fileobj.seek(0)  # elsewhere, so that tarfile looks whether the last member is whole
                info = archive.next()
                if info is None:
                    _check_end(archive)
                    return
                archive.members.clear()  # type: ignore[attr-defined]  # it remembers every header else
                if info.isreg():
                    if info.issparse():
                        raise tarfile.ReadError(
                            f"{info.name} lies in pieces: it was stored without its holes"
                        )
                    yield Member(info.name, info.offset_data, info.size, info.mtime)
    except tarfile.TarError as fault:
        told = f"SOURCE {path} is no whole tar archive ({fault}); a compressed one must be decompressed first"
        raise BulkError(told) from None


def _check_end(archive: tarfile.TarFile) -> None:
    """Raise ReadError unless *archive* ends where tarfile takes it to end, by a block of zeros."""
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    block = archive.fileobj.read(BLOCK_BYTES)
    if not block:
        raise tarfile.ReadError("it is cut off: no zeros end it")
    if block.strip(b"\0"):
        raise tarfile.ReadError("a header is damaged")


def _plain(archive: tarfile.TarFile) -> Member | None:
    """Return the member that *archive* comes to next, and go past it, if its header is of the plainest."""
    start = archive.offset + BLOCK_BYTES
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    block = archive.fileobj.read(BLOCK_BYTES)
    if len(block) < BLOCK_BYTES or block[TYPE] != REGULAR or block[PREFIX.start]:
        return None
    name = block[NAME].partition(b"\0")[0]
    try:
        size_bytes, mtime, told = (int(block[field].rstrip(b" \0"), 8) for field in (SIZE, MTIME, CHECKSUM))
    except ValueError:
        return None
    checksum = sum(block) - sum(block[CHECKSUM]) + BLANK_CHECKSUM
    if told != checksum or size_bytes < 0 or not name.isascii() or not name or name.endswith(b"/"):
        return None
    end = start + -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES
    archive.offset = end
    return Member(name.decode(), start, size_bytes, mtime)


def _key(name: str) -> str:
    folder, _, file = name.rpartition("/")
    return f"{folder}/{file.partition('.')[0]}"


def _sample(path: str, members: list[Member], how: As, when: int) -> Iterator[Row]:
    if how != "text":
        for member in members:
            if os.path.splitext(member.name)[1].lower() in PICTURES:  # noqa: PTH122  a Path for each costs
                stamp = f"{member.size_bytes} {member.mtime} {when}"
                yield Row(f"{path}/{member.name}", "file", path, member.start, member.size_bytes, stamp)
                return
    texts = [member for member in members if member.name.endswith(".txt")] if how != "image" else []
    if texts:
        yield row_of_text(_text(path, texts[0]).strip(), "text", name=f"{path}/{texts[0].name}")


def _text(path: str, member: Member) -> str:
    if member.size_bytes == 0:
        return ""
    if member.size_bytes > MAX_TEXT_CHARS:
        raise BulkError(f"SOURCE {path}: {member.name} is too long for a text")
    try:
        return Row("", "file", path, member.start, member.size_bytes).picture().decode()
    except UnicodeDecodeError as fault:
        raise BulkError(f"SOURCE {path}: {member.name} is not UTF-8 text: {fault.reason}") from None
