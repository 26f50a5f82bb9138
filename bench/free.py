"""A worker whose engine costs nothing: what is left is the job loop, HTTP and the queue's edge.

It is wired as the real one is, with actions that answer at once.
"""

from __future__ import annotations

from typing import Any

from embedding.serve import logs, queue
from embedding.settings import Settings


class FreeActions:
    """Answers every job with one and the same short answer."""

    async def run(self, _job_input: Any, *, job_id: str | None = None) -> dict[str, str | None]:
        """Return the answer."""
        return {"request_id": job_id}

    def is_healthy(self) -> bool:
        """Return True: there is no device."""
        return True


def main() -> None:
    """Take jobs until told to stop."""
    settings = Settings.from_env()
    logs.set_up(level=settings.log_level, as_json=settings.endpoint_id is not None)
    queue.run_sdk(
        queue.make_handler(FreeActions()),  # type: ignore[arg-type]
        concurrency=settings.worker_concurrency,
        check_device=lambda: None,
        job_loop=settings.job_loop,
    )


if __name__ == "__main__":
    main()
