"""Files of the Hugging Face Hub, fetched so that a second try goes on where the first was cut off.

huggingface_hub 2.4.0 writes each download into a file of its process alone and deletes that when it fails, so
it starts anew; and it compares lengths only. Here what came is kept under the name of its content's digest,
the hub is asked for the rest by huggingface_hub's own `http_get`, and the whole is compared with the digest
that the hub tells: the SHA-256 of large files, git's SHA-1 of small ones. What uses the files then finds them
as in huggingface_hub's cache (https://huggingface.co/docs/huggingface_hub/guides/manage-cache) and is kept
offline, so it cannot ask the hub for anything that was not compared.

Two processes that write one file at once write the same bytes to the same places.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Any

import httpx2
from huggingface_hub import HfApi, constants, errors, hf_hub_url
from huggingface_hub.file_download import http_get
from huggingface_hub.utils._headers import build_hf_headers

from embedding.errors import DownloadError
from embedding.model.folder import file_sha256, reason_of


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_SHA256_DIGITS = 64
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # it becomes the name of a file
_REVISION = re.compile(r"[0-9a-f]{40}")  # and this of a folder
# What huggingface_hub raises beside its own errors, for an answer that it cannot read or an odd address.
_FAULTS = (httpx2.InvalidURL, ValueError, LookupError, TypeError, AttributeError, RuntimeError)
_FORBIDDEN = frozenset({401, 403, 404})


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository; *digest* is its SHA-256, or git's SHA-1 of a small one."""

    name: str
    size_bytes: int
    digest: str

    def agrees_with(self, file: Path) -> bool:
        """Whether *file* holds what the hub says that it holds."""
        if len(self.digest) == _SHA256_DIGITS:
            return file_sha256(file) == self.digest
        header = b"blob %d\0" % self.size_bytes
        return hashlib.sha1(header + file.read_bytes(), usedforsecurity=False).hexdigest() == self.digest


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at the revision that was the newest when asked."""

    name: str
    revision: str
    files: dict[str, RemoteFile]


def read_repository(repo: str) -> Repository:
    """Ask the hub what *repo* holds, without what lies in folders. Raises DownloadError."""
    with _told(repo):
        about = HfApi().model_info(repo, files_metadata=True)
    files = {}
    for each in about.siblings or ():
        digest = each.lfs.sha256 if each.lfs else each.blob_id
        if "/" in each.rfilename or each.size is None:
            continue
        if digest and _DIGEST.fullmatch(digest):
            files[each.rfilename] = RemoteFile(each.rfilename, each.size, digest)
    if not about.sha or not _REVISION.fullmatch(about.sha):
        raise DownloadError(f"the hub does not say which revision {repo} has")
    return Repository(repo, about.sha, files)


@contextmanager
def offline(wanted: Iterable[tuple[Repository, RemoteFile]], blobs: Path) -> Iterator[None]:
    """Let huggingface_hub find the files *wanted*, which lie in *blobs*, in the block, and nothing else."""
    before = constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE
    with TemporaryDirectory(prefix="hub-") as cache:
        for repo, file in wanted:
            folder = Path(cache) / f"models--{repo.name.replace('/', '--')}"
            link = folder / "snapshots" / repo.revision / file.name
            for each in (folder / "refs", link.parent):
                each.mkdir(parents=True, exist_ok=True)
            (folder / "refs" / "main").write_text(repo.revision, encoding="ascii")
            link.symlink_to(blobs.absolute() / file.digest)
        constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE = cache, True  # read at each call
        try:
            yield
        finally:
            constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE = before


def bytes_here(file: RemoteFile, blobs: Path) -> int:
    """Return how much of *file* lies in *blobs* already."""
    for name in (file.digest, _part(file)):
        if (blobs / name).exists():
            return min((blobs / name).stat().st_size, file.size_bytes)
    return 0


def fetch(repo: Repository, file: RemoteFile, blobs: Path, on_size: Callable[[int], None]) -> Path:
    """Return *file* of *repo* in the folder *blobs*, after what of it is not there yet was fetched.

    *on_size* is told its size as it grows; what it raises ends the download, and what came is kept.
    Raises DownloadError; a file whose digest is wrong is deleted then.
    """
    blob, part = blobs / file.digest, blobs / _part(file)
    if blob.exists():
        blob.rename(part)  # judged again: a volume may have lost what it was given last
    if part.exists() and part.stat().st_size > file.size_bytes:
        part.unlink()
    with _told(repo.name), part.open("r+b" if part.exists() else "w+b", buffering=0) as content:
        sink: Any = _Sink(content, on_size)
        http_get(
            hf_hub_url(repo.name, file.name, revision=repo.revision),
            sink,
            resume_size=content.seek(0, os.SEEK_END),
            headers=build_hf_headers(),
            expected_size=file.size_bytes,
            displayed_filename=file.name,
        )
    if not file.agrees_with(part):
        part.unlink()
        raise DownloadError(
            f"{file.name} of {repo.name} has not the checksum that the hub tells; it was deleted: try again",
            retryable=True,
        )
    part.rename(blob)
    return blob


class _Sink:
    """What of a file `http_get` uses, with the size told after each write."""

    def __init__(self, content: IO[bytes], on_size: Callable[[int], None]) -> None:
        self._content, self._on_size = content, on_size
        self.seek, self.tell, self.truncate = content.seek, content.tell, content.truncate

    def write(self, chunk: bytes) -> int:
        view = memoryview(chunk)
        while view:
            view = view[self._content.write(view) :]
        self._on_size(self._content.tell())
        return len(chunk)


def _part(file: RemoteFile) -> str:
    return f"{file.digest}.part"


@contextmanager
def _told(repo: str) -> Iterator[None]:  # noqa: C901  (a table)
    """Raise every fault of the block as a DownloadError that says what to do, without an address."""
    try:
        yield
    except errors.GatedRepoError as exc:
        raise DownloadError(f"{repo} is gated; accept its terms and set HF_TOKEN") from exc
    except errors.RepositoryNotFoundError as exc:
        raise DownloadError(f"{repo} does not exist on the hub, or HF_TOKEN may not read it") from exc
    except errors.HFValidationError as exc:
        raise DownloadError(f"{repo} is not a repository's name on the hub") from exc
    except errors.OfflineModeIsEnabled as exc:
        raise DownloadError("HF_HUB_OFFLINE is set: nothing may be downloaded") from exc
    except errors.HfHubHTTPError as exc:
        status = exc.response.status_code
        told = f"the hub answered {status} for {repo}; what came is kept"
        raise DownloadError(told, retryable=status not in _FORBIDDEN) from exc
    except (httpx2.HTTPError, ConnectionError) as exc:
        told = f"the hub cannot be reached, or breaks off, for {repo}; what came is kept: try again"
        raise DownloadError(told, retryable=True) from exc
    except _FAULTS as exc:
        told = f"the hub's client fails on {repo}; the worker's log says why, and what came is kept"
        raise DownloadError(told) from exc
    except OSError as exc:
        full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
        told = "the volume is full" if full else f"{repo} could not be stored ({_plain(exc)}); try again"
        raise DownloadError(told, retryable=not full) from exc


def _plain(exc: OSError) -> str:
    """Return what went wrong without the path."""
    return exc.strerror or reason_of(exc)
