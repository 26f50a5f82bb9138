"""A worker whose engine costs nothing: what is left is the job loop or the HTTP service, and their edges.

It is wired as the real one is, with actions that answer at once.
"""

from __future__ import annotations

import sys
from typing import Any

from embedding.serve import logs, queue
from embedding.serve.access import Access
from embedding.settings import Settings


class FreeActions:
    """Answers every job with one and the same short answer."""

    async def run(
        self,
        _job_input: Any,
        *,
        action: str | None = None,  # noqa: ARG002  the real one's
        job_id: str | None = None,
        is_trusted: bool = False,  # noqa: ARG002
    ) -> dict[str, str | None]:
        """Return the answer."""
        return {"request_id": job_id}

    def is_healthy(self) -> bool:
        """Return True: there is no device."""
        return True


def main() -> int:
    """Take jobs until told to stop; return the exit status."""
    settings = Settings.from_env()
    logs.set_up(level=settings.log_level, as_json=settings.endpoint_id is not None)
    if settings.worker_mode == "http":
        return _serve(settings)
    queue.run_sdk(
        queue.make_handler(FreeActions()),  # type: ignore[arg-type]
        concurrency=settings.worker_concurrency,
        check_device=lambda: None,
        job_loop=settings.job_loop,
    )
    return 0


def _serve(settings: Settings) -> int:
    from embedding.serve.http.server import HttpWorker, Loaded  # noqa: PLC0415  not for the queue

    loaded = Loaded(FreeActions(), {})  # type: ignore[arg-type]
    return HttpWorker(settings, lambda: loaded, Access()).run()


if __name__ == "__main__":
    sys.exit(main())
