"""How `python handler.py` runs: which of its ways the environment and the arguments ask for.

RunPod sets RUNPOD_WEBHOOK_GET_JOB where there is a queue. Without it the SDK runs one job from
--test_input or test_input.json, or serves its local API, or dies with 'test_input.json not found';
that last case becomes the smoke test here, so a container started with nothing proves itself.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from embedding.contract.jobs import read_job
from embedding.errors import StartupError


if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from embedding.settings import Settings


class Mode(StrEnum):
    """A way to run."""

    QUEUE = "queue"
    HTTP = "HTTP service"
    LOCAL_API = "local API"
    DRY_RUN = "dry run"
    SMOKE_TEST = "smoke test"

    @property
    def serves(self) -> bool:
        """Whether strangers' jobs arrive: then a secret and a chosen model are required."""
        return self in (Mode.QUEUE, Mode.HTTP, Mode.LOCAL_API)


def choose(settings: Settings, arguments: Sequence[str], folder: Path) -> Mode:
    """Return the mode for *arguments* (without the program's name), started in *folder*.

    In doubt it is one that serves, and so asks for a secret: the SDK accepts shortened flags, and with a
    queue's address it takes jobs from there if --test_input turns out to be empty.
    """
    if settings.worker_mode == "http":
        return Mode.HTTP
    if not settings.serverless:
        return Mode.SMOKE_TEST
    if settings.realtime_port or any(argument.startswith("--rp_s") for argument in arguments):
        return Mode.LOCAL_API
    if settings.job_source_url:
        return Mode.QUEUE
    given = any(argument.startswith("--test_i") for argument in arguments)
    return Mode.DRY_RUN if given or (folder / "test_input.json").is_file() else Mode.SMOKE_TEST


def check_test_input(arguments: Sequence[str], folder: Path) -> None:
    """Refuse a dry run of what is no job, where the SDK would end in a traceback.

    Raises StartupError if --test_input, or test_input.json in *folder*, is not `{"input": {...}}`.
    """
    source, text = _test_input(arguments, folder)
    read_job(text, source=source)


def _test_input(arguments: Sequence[str], folder: Path) -> tuple[str, str]:
    for place, argument in enumerate(arguments):
        name, equals, attached = argument.partition("=")
        if name.startswith("--test_i"):
            return "--test_input", attached if equals else "".join(arguments[place + 1 : place + 2])
    try:
        return "test_input.json", (folder / "test_input.json").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise StartupError(f"test_input.json cannot be read: {fault}") from None
