"""From nothing to a worker that can take jobs: settings, refusals, model, warm-up, diagnostics.

`start()` is called once in a process, by `handler.py` or by `python -m embedding serve`. Whatever is wrong
ends the process with one plain line and exit status 1.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from embedding.errors import StartupError
from embedding.serve import diagnostics, logs, queue, smoke
from embedding.serve.access import Access
from embedding.serve.events import Tell, open_events
from embedding.serve.loading import Loading
from embedding.serve.mode import Mode, check_test_input, choose
from embedding.serve.sdk import import_sdk
from embedding.settings import Settings, environment_of_children, export_log_level, unknown_variables


if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from embedding.actions import Actions
    from embedding.intake.fetch import Fetcher
    from embedding.model.embedder import EmbeddingModel
    from embedding.model.engine import Engine
    from embedding.operator.operator import Operator
    from embedding.pipeline import Pipeline
    from embedding.serve.http.server import HttpWorker

M_ARENA_MAX = -8  # of glibc's malloc.h


@dataclass(frozen=True, slots=True)
class Worker:
    """A loaded worker and the way it is to run. *golden* tells how the model stood against golden vectors."""

    settings: Settings
    mode: Mode
    engine: Engine[EmbeddingModel]
    golden: str
    actions: Actions
    handler: queue.Handler
    tell: Tell

    def check_device(self) -> None:
        """Raise StartupError if the device has failed since the model was loaded and checked."""
        if not self.engine.is_healthy():
            raise StartupError("the device has failed")

    def run(self) -> int:
        """Take jobs until told to stop, or run the smoke test. Return the exit status."""
        self.tell.ready(is_session=self.mode.serves)
        return self.tell.until_the_end(self._run)

    def _run(self) -> int:
        if self.mode is Mode.SMOKE_TEST:
            url = self.settings.smoke_test_image_url
            passed = asyncio.run(
                smoke.smoke_test(self.actions, image_url=url, golden=self.golden, tell=self.tell)
            )
            return 0 if passed else 1
        queue.run_sdk(
            self.handler,
            concurrency=self.settings.worker_concurrency,
            check_device=self.check_device,
            job_loop=self.settings.job_loop,
            on_stop=self.actions.stop,
        )
        if not self.actions.is_healthy():
            self.tell.close(1)  # the platform gets 0, having been asked for a fresh worker
        return 0


def start(
    read_settings: Callable[[], Settings] = Settings.from_env, arguments: Sequence[str] | None = None
) -> Worker | HttpWorker:
    """Return the worker that the settings and *arguments* ask for, by default the process's own.

    Leaves by SystemExit 1 after one line on stderr if it cannot start.
    """
    _let_threads_finish()
    tell = open_events()
    _share_one_heap()
    gc.disable()  # imports make a million objects and no garbage: 0.1 s of torch's alone goes into looking
    try:
        return _start(read_settings(), sys.argv[1:] if arguments is None else arguments, tell)
    except StartupError as fault:
        gc.enable()
        print(f"✗ cannot start: {fault}", file=sys.stderr, flush=True)
        tell.close(1)
        raise SystemExit(1) from None


def _let_threads_finish() -> None:
    """Let no thread, of those started from here on, take a core from another only because it woke up.

    The other may hold the interpreter lock, and then all wait. Linux' policy for batch work changes no
    thread's share of the cores.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _share_one_heap() -> None:
    """Let all threads allocate from one heap, where libc is glibc: 60 MB less in use, and no slower here."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def _start(settings: Settings, arguments: Sequence[str], tell: Tell) -> Worker | HttpWorker:
    phases = diagnostics.Phases()
    logs.set_up(level=settings.log_level, as_json=settings.endpoint_id is not None)
    chosen = choose(settings, arguments, Path.cwd())
    access = Access.of(settings, chosen)
    _refuse_demo(settings, chosen)
    if chosen is Mode.HTTP:
        return _start_http(settings, access, phases, tell)
    if chosen is Mode.DRY_RUN:
        check_test_input(arguments, Path.cwd())
    tell.loading()
    loading = Loading(settings, phases)
    with phases.phase("other imports meanwhile"):
        _import_the_rest(settings, chosen)
        fetcher = fetcher_of(settings)
    operator = _operator(settings)
    actions = _actions(settings, _pipeline(settings, loading.engine, fetcher), access, operator)
    _report(chosen, loading, access)
    _let_the_collector_rest()
    handler = queue.make_handler(actions, tell, is_queue=chosen is Mode.QUEUE)
    return Worker(settings, chosen, loading.engine, loading.golden, actions, handler, tell)


def _start_http(settings: Settings, access: Access, phases: diagnostics.Phases, tell: Tell) -> HttpWorker:
    def load() -> Loaded:
        tell.loading()
        loading = Loading(settings, phases)
        fetcher = fetcher_of(settings)
        actions = _actions(settings, _pipeline(settings, loading.engine, fetcher), access)
        _report(Mode.HTTP, loading, access)
        _let_the_collector_rest()
        return Loaded(actions, diagnostics.about(settings, loading.engine.loaded.result()))

    with phases.phase("other imports"):
        from embedding.serve.http.server import HttpWorker, Loaded  # noqa: PLC0415

    return HttpWorker(settings, load, access, tell)


def _report(chosen: Mode, loading: Loading, access: Access) -> None:
    print(diagnostics.report(chosen, loading, access), *unknown_variables(), sep="\n", flush=True)
    diagnostics.warn_of_identity(loading.settings)


def _let_the_collector_rest() -> None:
    """Collect garbage from now on, and never look again at what the start has made."""
    gc.freeze()
    gc.enable()


def _refuse_demo(settings: Settings, chosen: Mode) -> None:
    is_demo = settings.model_path is None and settings.clip_model_name is None
    if is_demo and chosen.serves and not settings.allow_demo_model:
        raise StartupError(
            "no model is chosen, and the embedded demo model knows only drawn shapes: set CLIP_MODEL_NAME "
            "and CLIP_PRETRAINED, or MODEL_PATH; ALLOW_DEMO_MODEL=1 serves the demo model all the same"
        )


def _import_the_rest(settings: Settings, chosen: Mode) -> None:
    """Import what the first job needs beside torch."""
    import embedding.actions  # noqa: PLC0415, F401

    if chosen is not Mode.SMOKE_TEST:
        export_log_level(settings.log_level)
        import_sdk()


def fetcher_of(settings: Settings) -> Fetcher:
    """Return what downloads within the limits of *settings*."""
    from embedding.intake.fetch import Fetcher, FetchLimits  # noqa: PLC0415

    limits = FetchLimits(
        max_bytes=settings.max_image_bytes,
        timeout_s=settings.download_timeout_s,
        allow_http=settings.allow_http,
        allowed_domains=settings.allowed_domains,
    )
    return Fetcher(limits)


def _pipeline(settings: Settings, engine: Engine[EmbeddingModel], fetcher: Fetcher) -> Pipeline:
    from embedding.pipeline import Pipeline, PipelineLimits  # noqa: PLC0415

    limits = PipelineLimits(
        max_image_bytes=settings.max_image_bytes,
        download_concurrency=settings.download_concurrency,
    )
    if settings.cache_max_bytes == 0:
        return Pipeline(engine, fetcher, limits)
    from embedding.cached_pipeline import CachedPipeline  # noqa: PLC0415

    return CachedPipeline(engine, fetcher, limits, max_bytes=settings.cache_max_bytes)


def _operator(settings: Settings) -> Operator:
    from embedding.operator.operator import Operator, OperatorTerms  # noqa: PLC0415

    named = settings.clip_model_name
    terms = OperatorTerms(
        is_allowed=settings.allow_operator_actions,
        list_roots=settings.list_files_roots,
        model_roots=settings.model_roots,
        served=None if named is None else (named, settings.clip_pretrained or ""),
        environment=environment_of_children(),
    )
    return Operator(terms)


def _actions(
    settings: Settings, pipeline: Pipeline, access: Access, operator: Operator | None = None
) -> Actions:
    from embedding.actions import Actions, JobLimits  # noqa: PLC0415  imports numpy and Pillow
    from embedding.contract.responses import Served  # noqa: PLC0415
    from embedding.model.golden import bound_of, golden_vectors  # noqa: PLC0415
    from embedding.self_test import SelfTest  # noqa: PLC0415

    model = pipeline.engine.loaded.result()
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
    self_test = SelfTest(pipeline.engine, golden_vectors(model), bound=bound_of(identity.precision))
    return Actions(
        pipeline,
        served,
        limits,
        verifier=access.verifier,
        self_test=self_test,
        about=about,
        operator=operator,
    )
