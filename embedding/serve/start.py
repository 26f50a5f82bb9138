"""From nothing to a worker that can take jobs: settings, refusals, model, warm-up, diagnostics.

`start()` is called once, when `handler.py` is imported. Whatever is wrong ends the process with one plain
line and exit status 1.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from embedding.contract.keys import Keyring
from embedding.contract.signatures import Verifier
from embedding.errors import StartupError
from embedding.serve import diagnostics, logs, queue, smoke
from embedding.serve.mode import Mode, check_test_input, choose
from embedding.settings import Settings, unknown_variables


if TYPE_CHECKING:
    from embedding.actions import Actions
    from embedding.model.embedder import EmbeddingModel
    from embedding.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Worker:
    """A loaded worker and the way it is to run."""

    settings: Settings
    mode: Mode
    model: EmbeddingModel
    golden: str
    actions: Actions
    handler: queue.Handler

    def self_test(self) -> None:
        """Embed the golden inputs again; raises StartupError if the device now gives other vectors."""
        from embedding.model.golden import check_golden  # noqa: PLC0415  imports torch

        check_golden(self.model)

    def run(self) -> int:
        """Take jobs until told to stop, or run the smoke test. Return the exit status."""
        if self.mode is Mode.SMOKE_TEST:
            url = self.settings.smoke_test_image_url
            passed = asyncio.run(smoke.smoke_test(self.actions, image_url=url, golden=self.golden))
            return 0 if passed else 1
        queue.run_sdk(
            self.handler,
            concurrency=self.settings.worker_concurrency,
            self_test=self.self_test,
            log_level=self.settings.log_level,
            job_loop=self.settings.job_loop,
        )
        return 0


def start() -> Worker:
    """Return the worker that the environment and the command line ask for.

    Leaves by SystemExit 1 after one line on stderr if it cannot start.
    """
    try:
        return _start()
    except StartupError as fault:
        print(f"✗ cannot start: {fault}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None


def _start() -> Worker:
    phases = diagnostics.Phases()
    settings = Settings.from_env()
    logs.set_up(level=settings.log_level, as_json=settings.endpoint_id is not None)
    chosen = choose(settings, sys.argv[1:], Path.cwd())
    verifier = _verifier(settings, chosen)
    _refuse_demo(settings, chosen)
    if chosen is Mode.DRY_RUN:
        check_test_input(sys.argv[1:], Path.cwd())
    with phases.phase("import torch"):
        from embedding.model.engine import leave_cpu_to_the_engine  # noqa: PLC0415  the longest import
    cpu_threads = leave_cpu_to_the_engine()
    model, golden = _load(settings, phases)
    actions = _actions(settings, model, _pipeline(settings, model, cpu_threads), verifier)
    signatures = "required" if verifier else "not required"
    told = diagnostics.report(chosen, model, cpu_threads=cpu_threads, signatures=signatures, phases=phases)
    print(told, *unknown_variables(), sep="\n", flush=True)
    return Worker(settings, chosen, model, golden, actions, queue.make_handler(actions))


def _verifier(settings: Settings, chosen: Mode) -> Verifier | None:
    """Return what checks signatures; None where they are not asked for."""
    if not chosen.serves or settings.allow_insecure_auth:
        return None
    if settings.hmac_secret is None:
        raise StartupError(
            "EMBEDDING_HMAC_SECRET is not set, so anyone could use this worker: "
            "set it, or ALLOW_INSECURE_AUTH=1 to accept unsigned jobs"
        )
    try:
        keyring = Keyring.parse(settings.hmac_secret.get_secret_value())
    except ValueError as fault:
        raise StartupError(str(fault)) from None
    return Verifier(keyring, window_s=settings.auth_window_s, min_version=settings.auth_min_version)


def _refuse_demo(settings: Settings, chosen: Mode) -> None:
    is_demo = settings.model_path is None and settings.clip_model_name is None
    if is_demo and chosen.serves and not settings.allow_demo_model:
        raise StartupError(
            "no model is chosen, and the embedded demo model knows only drawn shapes: set CLIP_MODEL_NAME "
            "and CLIP_PRETRAINED, or MODEL_PATH; ALLOW_DEMO_MODEL=1 serves the demo model all the same"
        )


def _load(settings: Settings, phases: diagnostics.Phases) -> tuple[EmbeddingModel, str]:
    """Return the model, and how it stands against its golden vectors."""
    from embedding.model.folder import GOLDEN_NAME  # noqa: PLC0415
    from embedding.model.golden import load_checked  # noqa: PLC0415  imports torch
    from embedding.model.weights import ModelSource, find_weights  # noqa: PLC0415

    with phases.phase("find weights"):
        source = ModelSource(
            model_path=settings.model_path,
            model_name=settings.clip_model_name,
            pretrained=settings.clip_pretrained,
            roots=tuple(Path(root) for root in settings.model_roots),
        )
        folder = find_weights(source)
    with phases.phase("load and check the model"):
        device = diagnostics.torch_device(settings.gpu_device)
        model, cosine = load_checked(folder, device=device, precision=settings.precision)
    if (folder.path / GOLDEN_NAME).exists():
        return model, f"golden vectors: cosine {cosine:.6f} to those made by open_clip"
    return model, f"no {GOLDEN_NAME} in this folder: cosine {cosine:.6f} between two runs"


def _pipeline(settings: Settings, model: EmbeddingModel, cpu_threads: int) -> Pipeline:
    from embedding.intake.fetch import Fetcher, FetchLimits  # noqa: PLC0415
    from embedding.pipeline import Pipeline, PipelineLimits  # noqa: PLC0415

    fetcher = Fetcher(
        FetchLimits(
            max_bytes=settings.max_image_bytes,
            timeout_s=settings.download_timeout_s,
            allow_http=settings.allow_http,
            allowed_domains=settings.allowed_domains,
        )
    )
    limits = PipelineLimits(
        max_image_bytes=settings.max_image_bytes,
        download_concurrency=settings.download_concurrency,
        cpu_threads=cpu_threads,
    )
    return Pipeline(model, fetcher, limits)


def _actions(
    settings: Settings, model: EmbeddingModel, pipeline: Pipeline, verifier: Verifier | None
) -> Actions:
    from embedding.actions import Actions, JobLimits  # noqa: PLC0415  imports numpy and Pillow
    from embedding.contract.responses import Served  # noqa: PLC0415

    identity = model.identity
    served = Served(
        model=settings.served_name or identity.model_name,
        model_name=identity.model_name,
        pretrained=identity.pretrained,
        device=identity.device,
        fingerprint=identity.fingerprint,
        dim=identity.dim,
    )
    about = {
        "precision": identity.precision,
        "versions": diagnostics.versions(),
        "identity": diagnostics.identity(settings),
    }
    limits = JobLimits(settings.max_batch_size, settings.max_response_bytes, settings.job_timeout_s)
    return Actions(pipeline, served, limits, verifier=verifier, about=about)
