"""How `python handler.py` runs: which of its ways the environment and the arguments ask for.

RunPod sets RUNPOD_WEBHOOK_GET_JOB where there is a queue. Without it the SDK runs one job from
--test_input or test_input.json, or serves its local API, or dies with 'test_input.json not found';
that last case becomes the smoke test here, so a container started with nothing proves itself.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from embedding.settings import Settings


class Mode(StrEnum):
    """A way to run."""

    QUEUE = "queue"
    LOCAL_API = "local API"
    DRY_RUN = "dry run"
    SMOKE_TEST = "smoke test"

    @property
    def serves(self) -> bool:
        """Whether strangers' jobs arrive: then a secret and a chosen model are required."""
        return self in (Mode.QUEUE, Mode.LOCAL_API)


def choose(settings: Settings, arguments: Sequence[str], folder: Path) -> Mode:
    """Return the mode for *arguments* (without the program's name), started in *folder*.

    In doubt it is one that serves, and so asks for a secret: the SDK accepts shortened flags, and with a
    queue's address it takes jobs from there if --test_input turns out to be empty.
    """
    if not settings.serverless:
        return Mode.SMOKE_TEST
    if settings.realtime_port or any(argument.startswith("--rp_s") for argument in arguments):
        return Mode.LOCAL_API
    if settings.job_source_url:
        return Mode.QUEUE
    given = any(argument.startswith("--test_i") for argument in arguments)
    return Mode.DRY_RUN if given or (folder / "test_input.json").is_file() else Mode.SMOKE_TEST
