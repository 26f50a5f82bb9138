"""A model onto the volume: from the hub's files to a folder that a fresh worker serves without a network.

Below the root lies `.download`, with a lease and a folder of work for each model that is on its way: what
came of its files stays there until the model is prepared, and goes then. The folder `NAME--TAG` appears at
once and whole, by a rename on the same volume. Of several workers that want one model, one works and the
others wait and then find it there. Each step may be cut off at any moment and is taken up by whoever comes
next.
"""

from __future__ import annotations

import json
import logging
import shutil
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from typing import TYPE_CHECKING, Final

from huggingface_hub import constants

from embedding.errors import DownloadError, StartupError
from embedding.model.folder import GOLDEN_NAME, exists, file_sha256, holds_model, read_config, weights_file
from embedding.model.registry import find_tag
from embedding.model.weights import (
    CHECKPOINT_NAMES,
    HUB_PREFIX,
    SMALL_FILES,
    folder_name,
)
from embedding.operator.hub import Repository, bytes_here, fetch, read_repository
from embedding.operator.lease import Lease, LeaseLost


if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from embedding.operator.hub import RemoteFile

    Tell = Callable[[str, int, int], None]

WORK_NAME: Final = ".download"
MARGIN_BYTES: Final = 64 << 20  # config, tokenizer, golden vectors, and what a file system keeps for itself

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one model: *fetched_bytes* came now, *resumed_bytes* were there from an earlier try."""

    folder: str
    status: str
    size_bytes: int
    fetched_bytes: int = 0
    resumed_bytes: int = 0


class Download:
    """One model on its way to *root*; *tell* is told phase, bytes done and bytes in all."""

    def __init__(self, model: str, pretrained: str, root: Path, tell: Tell) -> None:
        self._is_repository = model.startswith(HUB_PREFIX)
        self._model = model if self._is_repository else model.replace("/", "-")
        self._pretrained, self._root, self._tell = pretrained, root, tell
        self._folder = root / folder_name(self._model, pretrained)
        self._work = root / WORK_NAME / self._folder.name
        self._lease = Lease(self._work.with_name(f"{self._folder.name}.lease"))

    def run(self) -> Outcome:
        """Return what became of the model. Raises DownloadError, and StartupError for an unknown name."""
        repo, file = self._place()
        try:
            if not self._root.exists() and not self._root.parent.is_dir():
                raise DownloadError("no volume is mounted where the last of MODEL_ROOTS should be")
            if self._is_finished():
                return self._outcome("present")
            self._work.parent.mkdir(parents=True, exist_ok=True)
            while True:
                with suppress(LeaseLost), self._lease.held(lambda: self._tell("waiting", 0, 0)):
                    return self._hold(repo, file)
        except OSError as exc:
            raise DownloadError(f"the volume cannot be written: {exc.strerror}") from exc

    def _hold(self, repo: str, file: str) -> Outcome:
        try:
            return self._outcome("present") if self._is_finished() else self._make(repo, file)
        except (OSError, DownloadError):
            self._lease.check()  # who took it may have cleared away what this one worked on
            raise

    def _place(self) -> tuple[str, str]:
        if self._is_repository:
            return self._model.removeprefix(HUB_PREFIX), ""
        return find_tag(self._model, self._pretrained).place

    def _is_finished(self) -> bool:
        """Whether the folder holds this model undamaged. Raises DownloadError if it holds anything else."""
        if not exists(self._folder) or (self._folder.is_dir() and not any(self._folder.iterdir())):
            return False
        self._tell("verifying", 0, 0)
        name = self._folder.name
        try:
            made_of = read_config(self._folder).source if holds_model(self._folder) else {}
            golden = json.loads((self._folder / GOLDEN_NAME).read_text(encoding="utf-8"))
        except (StartupError, OSError, ValueError):
            made_of, golden = {}, {}
        if (made_of.get("model_name"), made_of.get("pretrained")) != (self._model, self._pretrained):
            raise DownloadError(f"{name} is there, and is not this model; remove it from the volume")
        if golden.get("weights_sha256") != file_sha256(weights_file(self._folder)):
            raise DownloadError(f"{name} is there, and damaged; remove it from the volume")
        return True

    def _outcome(self, status: str, *, fetched_bytes: int = 0, resumed_bytes: int = 0) -> Outcome:
        size_bytes = sum(file.stat().st_size for file in self._folder.iterdir())
        return Outcome(self._folder.name, status, size_bytes, fetched_bytes, resumed_bytes)

    def _make(self, repo: str, file: str) -> Outcome:
        repository = read_repository(repo)
        files = _needed(repository, file)
        hub_cache = self._work / "hub"
        blobs = hub_cache / f"models--{repo.replace('/', '--')}" / "blobs"
        blobs.mkdir(parents=True, exist_ok=True)
        total_bytes = sum(each.size_bytes for each in files)
        resumed_bytes = sum(bytes_here(each, blobs) for each in files)
        self._check_room(total_bytes - resumed_bytes + max(each.size_bytes for each in files))
        done_bytes = 0
        for each in files:
            fetch(repository, each, blobs, partial(self._grown, done_bytes, total_bytes))
            done_bytes += each.size_bytes
        self._tell("preparing", total_bytes, total_bytes)
        self._prepare(hub_cache)
        return self._outcome(
            "downloaded", fetched_bytes=total_bytes - resumed_bytes, resumed_bytes=resumed_bytes
        )

    def _grown(self, before_bytes: int, total_bytes: int, size_bytes: int) -> None:
        self._lease.check()
        self._tell("downloading", before_bytes + size_bytes, total_bytes)

    def _check_room(self, needed_bytes: int) -> None:
        free_bytes = shutil.disk_usage(self._root).free
        if free_bytes < needed_bytes + MARGIN_BYTES:
            raise DownloadError(
                f"the volume is too small: {needed_bytes + MARGIN_BYTES} bytes are needed for "
                f"{self._folder.name}, {free_bytes} are free"
            )

    def _prepare(self, hub_cache: Path) -> None:
        """Let open_clip make the folder of the files in *hub_cache*, and put it into its place."""
        constants.HF_HUB_CACHE = str(hub_cache)  # read at each call; the environment would be too late
        from embedding.model.prepare import prepare  # noqa: PLC0415  (imports open_clip)

        made = self._work / "made"
        for leftover in self._work.glob(f".{made.name}.*"):
            shutil.rmtree(leftover, ignore_errors=True)
        try:
            prepare(self._model, self._pretrained, made, say=log.info)
        except StartupError as exc:
            log.error("%s", exc)  # noqa: TRY400  (its line says it all)
            told = f"open_clip could not make a folder of {self._folder.name}; the log says why"
            raise DownloadError(told) from exc
        self._lease.check()
        try:
            made.rename(self._folder)
        except OSError:
            if not self._is_finished():  # else another, whom this one was too slow for, was faster
                raise
        shutil.rmtree(self._work, ignore_errors=True)


def _needed(repository: Repository, file: str) -> list[RemoteFile]:
    """Return the files that open_clip needs, the weights last. Raises DownloadError where there are none."""
    names = (file.replace(".bin", ".safetensors"), file) if file else CHECKPOINT_NAMES
    weights = next((name for name in names if name in repository.files), None)
    if weights is None:
        raise DownloadError(f"{repository.name} holds no weights in a format that open_clip reads")
    small = {name for name in repository.files if _is_small(name)} - {weights}
    return [repository.files[name] for name in (*sorted(small), weights)]


def _is_small(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in (*SMALL_FILES, "config.json"))
