"""What the worker says of itself: at start in one block, and in every `health`."""

from __future__ import annotations

import logging
import platform
import time
from contextlib import contextmanager, suppress
from importlib import metadata
from typing import TYPE_CHECKING, Any

import embedding
from embedding.contract.identity import compare, digest_of


if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedding.model.embedder import EmbeddingModel
    from embedding.serve.access import Access
    from embedding.serve.loading import Loading
    from embedding.serve.mode import Mode
    from embedding.settings import Settings

log = logging.getLogger(__name__)

PACKAGES = ("torch", "open-clip-torch", "runpod", "pillow", "numpy")


class Phases:
    """Times the phases of the start, in milliseconds; some overlap, so their sum is not the whole."""

    def __init__(self) -> None:
        self.took_ms: dict[str, float] = {}
        self._started_s = time.perf_counter()

    def expect(self, name: str) -> None:
        """Give a phase that another thread enters its place in the order."""
        self.took_ms[name] = 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the block under *name*."""
        started_s = time.perf_counter()
        yield
        self.took_ms[name] = (time.perf_counter() - started_s) * 1e3

    def __str__(self) -> str:
        each = ", ".join(f"{name} {took:.0f}" for name, took in self.took_ms.items())
        return f"{each}, all {(time.perf_counter() - self._started_s) * 1e3:.0f} ms"


def versions() -> dict[str, str]:
    """Return the versions of what decides a vector, where installed, and of this worker."""
    found = {"worker": embedding.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def identity(settings: Settings) -> dict[str, str | bool | None]:
    """Return what this worker was built from, as far as the build and the deployment declare it.

    Where something else may be expected, also whether that is so.
    """
    declared: dict[str, str | bool | None] = {
        "gitCommit": settings.git_commit,
        "buildTime": settings.build_time,
        "declaredImageDigest": settings.image_digest,
        "imageDigestSource": "env" if settings.image_digest else "none",
    }
    commit, digest = settings.expected_commit, settings.expected_digest
    if commit is None and digest is None:
        return declared
    return declared | compare(declared, expected_commit=commit, expected_digest=digest).as_json()


def warn_of_identity(settings: Settings) -> None:
    """Log one warning where this is not the worker that was expected, or declares what is no digest."""
    told = identity(settings)
    if told.get("identityMatches") is False:
        log.warning("this is not the worker that was expected: %s", told["identityMismatchReason"])
    elif settings.image_digest and digest_of(settings.image_digest) is None:
        log.warning("IMAGE_DIGEST is not a digest: declare it as sha256: and 64 hexadecimal digits")


def identity_row(settings: Settings) -> str:
    """Return what the start's report says of it."""
    told = identity(settings)
    row = (
        f"commit {told['gitCommit'] or 'unknown'}, built {told['buildTime'] or 'unknown'}, "
        f"image digest {told['declaredImageDigest'] or 'not declared'}"
    )
    if "identityMatches" not in told:
        return row
    stands = {True: "as expected", False: "NOT as expected", None: "cannot be compared"}
    reason = told["identityMismatchReason"]
    return f"{row}: {stands[told['identityMatches']]}{f', {reason}' if reason else ''}"  # type: ignore[index]


def about(settings: Settings, model: EmbeddingModel) -> dict[str, Any]:
    """Return what `/v1/ping` tells: the model, its GPU, versions and identity."""
    import torch  # noqa: PLC0415

    on_gpu = torch.cuda.is_available()
    return {
        "version": embedding.__version__,
        "gpu": on_gpu,
        "gpuName": torch.cuda.get_device_name(model.identity.device) if on_gpu else None,
        "cuda": torch.version.cuda if on_gpu else None,
        "models": [settings.served_name or model.identity.model_name],
        "identity": identity(settings),
    }


def torch_device(gpu_device: int) -> str:
    """Return GPU number *gpu_device* as torch names it, or the CPU where there is no GPU."""
    import torch  # noqa: PLC0415  loaded by now, and not by `--help`

    return f"cuda:{gpu_device}" if torch.cuda.is_available() else "cpu"


def report(mode: Mode, loading: Loading, access: Access) -> str:
    """Return the block of lines that a start prints, once the model is loaded."""
    import torch  # noqa: PLC0415

    model, on_gpu = loading.engine.loaded.result(), torch.cuda.is_available()
    served = model.identity
    where = torch.cuda.get_device_name(served.device) if on_gpu else f"{loading.cpu_threads} threads"
    packages = ", ".join(f"{name} {version}" for name, version in versions().items())
    rows: dict[str, Any] = {
        "mode": mode,
        "model": f"{served.model_name} / {served.pretrained}, {served.dim} numbers, {model.folder.origin}",
        "fingerprint": served.fingerprint,
        "device": f"{served.device} ({where}), {served.precision}",
        "versions": f"{packages}, CUDA {torch.version.cuda if on_gpu else 'not in use'}",
        "access": f"by {' or '.join(access.ways())}" if not access.is_open else "open",
        "identity": identity_row(loading.settings),
        "start": loading.phases,
    }
    return "\n".join(f"{name:<12} {value}" for name, value in rows.items())
