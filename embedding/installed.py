"""Whether this installation holds the worker, or the client alone: `pip install .` brings no torch."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from embedding.errors import StartupError


WORKER: Final = ("torch", "open_clip", "safetensors", "fastapi", "uvicorn")


def require_worker(what: str) -> None:
    """Raise StartupError, which says what to install, if *what* needs packages that are not here."""
    missing = [name for name in WORKER if find_spec(name) is None]
    if missing:
        raise StartupError(
            f"{what} needs the worker's packages, and {', '.join(missing)} cannot be found: "
            "pip install '.[worker]' brings them, and in a clone `make install` puts them into .venv"
        )
