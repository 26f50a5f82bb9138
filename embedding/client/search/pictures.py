"""From ids to small pictures: JPEG thumbnails of local files and of members of tar archives.

An id is a path, or ARCHIVE.tar/MEMBER, or a URL, or a text: the first that is there. The files are the
user's, but who drew them is not known: only the formats that a worker takes are read, and no more than 50
megapixels, by the header, before anything is decoded.
"""

from __future__ import annotations

import base64
import io
import tarfile
import warnings
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from PIL import Image, ImageOps

from embedding.client.bulk.rows import PICTURES
from embedding.client.inputs import is_web


if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

THUMBNAIL_PX: Final = 224
MAX_PIXELS: Final = 50_000_000
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF")
QUALITY: Final = 80
TAR: Final = ".tar/"


def thumbnails(ids: Iterable[str], folder: Path) -> dict[str, str]:
    """Return a data URI for each of *ids* that is a picture on this machine, paths taken from *folder*."""
    members: dict[Path, dict[str, list[str]]] = {}
    found: dict[str, str | None] = {}
    for name in set(ids):
        if is_web(name):
            continue
        path, member = _located(name, folder)
        if member is not None:
            members.setdefault(path, {}).setdefault(member, []).append(name)
        elif path is not None:
            found[name] = _of_file(path)
    for archive, names in members.items():
        for member, thumbnail in _of_archive(archive, names).items():
            found |= dict.fromkeys(names[member], thumbnail)
    return {name: thumbnail for name, thumbnail in found.items() if thumbnail is not None}


def is_picture(name: str) -> bool:
    """Return whether *name* ends as the path of a picture does, on this machine or in an archive."""
    return not is_web(name) and PurePath(name).suffix.lower() in PICTURES


def thumbnail_of(file: BinaryIO) -> str | None:
    """Return *file* as a data URI of a small JPEG; None if it is no picture, damaged or too large."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what Pillow finds odd: it is shown, not judged
            with Image.open(file, formats=FORMATS) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    return None
                return _data_uri(opened)
    except (OSError, ValueError, SyntaxError, EOFError, ArithmeticError, Image.DecompressionBombError):
        return None


def _located(name: str, folder: Path) -> tuple[Any, str | None]:
    """Return the file of *name* and the member in it, each None where there is none."""
    try:
        if (folder / name).is_file():
            return folder / name, None
        start = name.find(TAR)
        archive = folder / name[: start + len(TAR) - 1]
        if start > 0 and archive.is_file():
            return archive, name[start + len(TAR) :]
    except (OSError, ValueError):  # a text is too long for a path, or holds a null character
        pass
    return None, None


def _of_file(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return thumbnail_of(file)
    except OSError:
        return None


def _of_archive(path: Path, names: Collection[str]) -> dict[str, str | None]:
    """Return the thumbnails of the members *names*, walking the headers of the archive once."""
    found: dict[str, str | None] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            while len(found) < len(names) and (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep every header that it has read
                if member.name in names and member.isreg() and (file := archive.extractfile(member)):
                    with file:
                        found[member.name] = thumbnail_of(cast("BinaryIO", file))
    except (OSError, tarfile.TarError):
        return found
    return found


def _data_uri(opened: Image.Image) -> str:
    opened.draft("RGB", (2 * THUMBNAIL_PX, 2 * THUMBNAIL_PX))
    upright = ImageOps.exif_transpose(opened)
    upright.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), reducing_gap=2.0)
    clear = upright.convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    into = io.BytesIO()
    flat.save(into, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(into.getvalue()).decode('ascii')}"
