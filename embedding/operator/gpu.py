"""What nvidia-smi says, bounded in time and length."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from embedding.errors import InvalidInput, Overloaded
from embedding.operator.child import running


if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT_S: Final = 15.0  # its first call after boot takes seconds; a broken driver lets it hang
MAX_OUTPUT_BYTES: Final = 65_536  # eight GPUs with a hundred processes take 12 KB
NO_GPU: Final = "gpu_info: this worker has no NVIDIA GPU, or no nvidia-smi"

log = logging.getLogger(__name__)


async def gpu_info(environment: Mapping[str, str], *, timeout_s: float = TIMEOUT_S) -> str:
    """Return the text of nvidia-smi, found on the PATH of *environment*.

    Raises InvalidInput where there is none or it fails, and Overloaded if it does not end in *timeout_s*.
    """
    try:
        async with (
            running("nvidia-smi", environment=environment, stderr=asyncio.subprocess.STDOUT) as child,
            asyncio.timeout(timeout_s),
        ):
            output = await _read(child.output)
            status = await child.process.wait()
    except TimeoutError:
        raise Overloaded(f"gpu_info: nvidia-smi did not end within {timeout_s:g} s") from None
    except OSError:
        raise InvalidInput(NO_GPU) from None
    if status:
        log.warning("nvidia-smi ended with status %d: %s", status, output)
        raise InvalidInput(f"{NO_GPU} that works: it ended with status {status}")
    return output


async def _read(output: asyncio.StreamReader) -> str:
    """Return the first MAX_OUTPUT_BYTES that are written; the rest is read and dropped."""
    kept = bytearray()
    while chunk := await output.read(MAX_OUTPUT_BYTES):
        kept += chunk[: MAX_OUTPUT_BYTES - len(kept)]
    return kept.decode("utf-8", "backslashreplace")
