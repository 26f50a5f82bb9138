"""A model onto the volume: from the hub's files to a folder that a fresh worker serves without a network.

Below the root lies `.download`, with `leases/NAME` and `work/NAME` for each model that is on its way: what
came of its files stays there until the model is prepared, and goes then. The folder `NAME--TAG` appears at
once and whole, by a rename on the same volume. Of several workers that want one model, one works and the
others wait and then find it there. Each step may be cut off at any moment and is taken up by whoever comes
next. open_clip makes the folder of files whose checksums were compared, and of no others.
"""

from __future__ import annotations

import errno
import json
import logging
import shutil
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from embedding.errors import DownloadError, InvalidInput, StartupError
from embedding.model.folder import (
    CONFIG_NAME,
    GOLDEN_NAME,
    exists,
    file_sha256,
    holds_model,
    read_config,
    weights_file,
)
from embedding.model.registry import find_tag, model_names, text_cfg_of
from embedding.model.weights import (
    CHECKPOINT_NAMES,
    HUB_PREFIX,
    SMALL_FILES,
    folder_name,
)
from embedding.operator.hub import Repository, bytes_here, fetch, offline, read_repository
from embedding.operator.lease import Lease, LeaseLost


if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from embedding.operator.hub import RemoteFile

    Tell = Callable[[str, int, int], None]
    Wanted = list[tuple[Repository, RemoteFile]]

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
        self._work = root / WORK_NAME / "work" / self._folder.name
        self._blobs = self._work / "blobs"
        self._lease = Lease(root / WORK_NAME / "leases" / self._folder.name)
        self._made = self._work / f"made.{self._lease.holder}"

    def run(self) -> Outcome:
        """Return what became of the model. Raises DownloadError, and InvalidInput for an unknown name."""
        repo, file = self._place()
        try:
            if not self._root.exists() and not self._root.parent.is_dir():
                raise DownloadError("no volume is mounted where the last of MODEL_ROOTS should be")
            if not self._work.exists() and self._is_finished():
                return self._outcome("present")
            (self._root / WORK_NAME / "leases").mkdir(parents=True, exist_ok=True)
            while True:
                with suppress(LeaseLost), self._lease.held(lambda: self._tell("waiting", 0, 0)):
                    return self._hold(repo, file)
        except OSError as exc:
            raise DownloadError(f"the volume cannot be written: {exc.strerror}") from exc
        except StartupError as exc:
            raise DownloadError("the volume cannot be read; the worker's log says why") from exc

    def _hold(self, repo: str, file: str) -> Outcome:
        try:
            if not self._is_finished():
                return self._make(repo, file)
            shutil.rmtree(self._work, ignore_errors=True)  # of one that was cut off at the very end
            return self._outcome("present")
        except (OSError, DownloadError, StartupError):
            self._lease.check()  # who took it may have cleared away what this one worked on
            raise

    def _place(self) -> tuple[str, str]:
        try:
            if not self._is_repository:
                return find_tag(self._model, self._pretrained).place
            repo = self._model.removeprefix(HUB_PREFIX)
            if repo.partition("/")[0] in model_names():
                raise InvalidInput(f"{repo} would have the folder of a model of open_clip: name it NAME/TAG")
        except StartupError as exc:  # a name or tag that open_clip does not know
            raise InvalidInput(str(exc)) from None
        return repo, ""

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
        self._blobs.mkdir(parents=True, exist_ok=True)
        files = _needed(read_repository(repo), file)
        self._delete_all_but(files)
        resumed_bytes = self._there(files)
        self._check_room(_size(files) - resumed_bytes + max(each.size_bytes for _, each in files))
        others = self._of_others(files)
        resumed_bytes += self._there(others)
        files = [*others, *files]
        total_bytes = _size(files)
        self._tell("downloading", 0, total_bytes)
        done_bytes = 0
        for repository, each in files:
            fetch(repository, each, self._blobs, partial(self._grown, done_bytes, total_bytes))
            done_bytes += each.size_bytes
        self._tell("preparing", total_bytes, total_bytes)
        with offline(files, self._blobs):
            self._prepare()
        return self._outcome(
            "downloaded", fetched_bytes=total_bytes - resumed_bytes, resumed_bytes=resumed_bytes
        )

    def _there(self, files: Wanted) -> int:
        return sum(bytes_here(each, self._blobs) for _, each in files)

    def _of_others(self, files: Wanted) -> Wanted:
        """Return what the text tower needs of other repositories: its tokenizer, its own config."""
        main = files[0][0]
        if self._is_repository and CONFIG_NAME in main.files:
            config = fetch(main, main.files[CONFIG_NAME], self._blobs, lambda _: self._lease.check())
            text_cfg = _text_cfg_in(config)
        else:
            text_cfg = {} if self._is_repository else text_cfg_of(self._model)
        named = {text_cfg.get("hf_tokenizer_name"), text_cfg.get("hf_model_name")} - {None, "", main.name}
        others = [read_repository(str(name)) for name in sorted(map(str, named))]
        return [(each, file) for each in others for name, file in each.files.items() if _is_small(name)]

    def _delete_all_but(self, files: Wanted) -> None:
        """Delete what came of files that the hub has replaced since, and small ones of others with it."""
        wanted = {each.digest for _, each in files}
        for blob in self._blobs.iterdir():
            if blob.name.removesuffix(".part") not in wanted:
                blob.unlink()

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

    def _prepare(self) -> None:
        """Let open_clip make the folder, and put it into its place."""
        from embedding.model.prepare import prepare  # noqa: PLC0415  (imports open_clip)

        self._lease.check()
        for leftover in {*self._work.iterdir()} - {self._blobs}:
            shutil.rmtree(leftover, ignore_errors=True)
        try:
            prepare(self._model, self._pretrained, self._made, say=log.info)
        except StartupError as exc:
            log.error("%s", exc)  # noqa: TRY400  (its line says it all)
            if _is_full(exc):
                told = f"the volume is too small: no room is left to make {self._folder.name} of what came"
                raise DownloadError(told) from exc
            told = f"open_clip could not make a folder of {self._folder.name}; the log says why"
            raise DownloadError(told) from exc
        self._lease.check()
        try:
            self._made.rename(self._folder)
        except OSError:
            if not self._is_finished():  # else another, whom this one was too slow for, was faster
                raise
        self._lease.check()
        shutil.rmtree(self._work, ignore_errors=True)


def _needed(repository: Repository, file: str) -> Wanted:
    """Return the files that open_clip needs, the weights last. Raises DownloadError where there are none."""
    names = (file.replace(".bin", ".safetensors"), file) if file else CHECKPOINT_NAMES
    weights = next((name for name in names if name in repository.files), None)
    if weights is None:
        raise DownloadError(f"{repository.name} holds no weights in a format that open_clip reads")
    small = {name for name in repository.files if _is_small(name)} - {weights}
    return [(repository, repository.files[name]) for name in (*sorted(small), weights)]


def _size(files: Wanted) -> int:
    return sum(each.size_bytes for _, each in files)


def _text_cfg_in(config: Path) -> dict[str, Any]:
    """Return what a hub repository's config says of its text tower; nothing where it has none."""
    try:
        text_cfg = json.loads(config.read_bytes())["model_cfg"]["text_cfg"]
    except (ValueError, LookupError, TypeError):
        return {}
    return text_cfg if isinstance(text_cfg, dict) else {}


def _is_full(fault: BaseException | None) -> bool:
    """Whether the volume was full; safetensors says so in words alone."""
    while fault is not None:
        codes = (errno.ENOSPC, errno.EDQUOT)
        if getattr(fault, "errno", None) in codes or any(f"os error {code})" in str(fault) for code in codes):
            return True
        fault = fault.__cause__
    return False


def _is_small(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in (*SMALL_FILES, "config.json"))
