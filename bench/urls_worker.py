"""The worker, whose downloads reach one server on 127.0.0.1 as if it were public: nothing else is changed.

The worker refuses such addresses, and rightly. The first argument is the server's port, the second a file
with the certificate authority to trust.
"""

from __future__ import annotations

import ssl
import sys
from typing import TYPE_CHECKING, cast

from embedding.intake.addresses import is_public
from embedding.intake.fetch import Fetcher, FetchLimits


if TYPE_CHECKING:
    from embedding.serve.start import Worker

HERE = "127.0.0.1"


def is_here_or_public(address: str) -> bool:
    """Allow this machine's own address, and else what is public."""
    return address == HERE or is_public(address)


def local_fetcher(port: int, authority: str) -> Fetcher:
    """Return what downloads from *port* of this machine, whatever the host is called."""
    return Fetcher(
        FetchLimits(allow_http=True, ports=frozenset({port})),
        resolver=lambda _host, _port: [HERE],
        is_allowed=is_here_or_public,
        tls=ssl.create_default_context(cafile=authority),
    )


def main() -> int:
    """Run the worker; return its exit status."""
    from embedding.serve.start import start  # noqa: PLC0415  not in the heartbeat, where it is spawned

    worker = cast("Worker", start())
    worker.actions.pipeline._fetcher = local_fetcher(int(sys.argv[1]), sys.argv[2])  # noqa: SLF001
    return worker.run()


if __name__ == "__main__":
    sys.exit(main())
