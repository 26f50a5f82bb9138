"""The real worker with a model that fails on a schedule and downloads that reach one server on 127.0.0.1.

Arguments: the server's port, and a seed. A forward that holds a marked input raises, one of more than two
items now and then finds no memory, some are slow, and SIGUSR1 breaks the device for good. Each fault is
told in a line of the log, `chaos {"fault": …, "at_s": …}`, by the clock that all processes share.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import threading
import time
from ipaddress import ip_address

from bench.urls_worker import HERE, is_here_or_public
from embedding.intake.fetch import Fetcher, FetchLimits


PICTURES = "pictures.example"
ADDRESSES = {
    PICTURES: [HERE],
    "private.example": ["10.0.0.7"],
    "mixed.example": [HERE, "169.254.169.254"],
}
DOWNLOAD_TIMEOUT_S = 3.0
INJECTED = "injected by the chaos run"
MARKED_TEXT = "poison"
DEVICE_LOST = "the device is lost"
NO_MEMORY, SLOW = 0.03, 0.05  # of all forwards
SLOWEST_S = 0.3


class Chaos:
    """Faults of a model, drawn from *seed*; forwards may come from several threads."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._drawing = threading.Lock()
        self._is_lost = threading.Event()
        self._lost_told = False

    def lose_device(self, *_signal) -> None:
        """Let every forward from now on fail as on a device that must be reset."""
        self._is_lost.set()

    def around(self, embed, is_marked):
        """Return *embed* with faults; *is_marked* says of one input whether it can never be embedded."""

        def disturbed(batch):
            self._disturb(len(batch), has_marked=any(map(is_marked, batch)))
            return embed(batch)

        return disturbed

    def _disturb(self, size: int, *, has_marked: bool) -> None:
        import torch  # noqa: PLC0415  not in the heartbeat

        with self._drawing:
            draw, pause_s = self._random.random(), self._random.uniform(0, SLOWEST_S)
        if self._is_lost.is_set():
            self._tell_of_the_loss()
            raise torch.AcceleratorError(f"{DEVICE_LOST}, {INJECTED}")
        if has_marked:
            tell("a forward that raises")
            raise RuntimeError(f"a marked input, {INJECTED}")
        if draw < NO_MEMORY and size > 2:
            tell("no memory")
            raise torch.OutOfMemoryError(f"no memory, {INJECTED}")
        if draw > 1 - SLOW:
            tell("a slow forward")
            time.sleep(pause_s)

    def _tell_of_the_loss(self) -> None:
        with self._drawing:
            if not self._lost_told:
                tell(DEVICE_LOST)
            self._lost_told = True


def tell(fault: str) -> None:
    """Write one line to the log, whole, whatever other threads write."""
    line = f"chaos {json.dumps({'fault': fault, 'at_s': time.monotonic()})}\n"
    os.write(sys.stdout.fileno(), line.encode())


def resolve(host: str, _port: int) -> list[str]:
    """Return the addresses of *host* in a world of three names; nothing is asked of any network."""
    if host in ADDRESSES:
        return ADDRESSES[host]
    try:
        return [str(ip_address(host))]
    except ValueError:
        raise socket.gaierror(socket.EAI_NONAME, "no such host") from None


def local_fetcher(port: int) -> Fetcher:
    """Return what downloads from *port* of this machine as if it were public, under one name."""
    limits = FetchLimits(
        timeout_s=DOWNLOAD_TIMEOUT_S,
        backoff_base_s=0.05,
        retry_cost=0,  # nine of ten pictures fail at first here: the process's budget would soon be spent
        allow_http=True,
        ports=frozenset({port, 80, 443}),
    )
    return Fetcher(limits, resolver=resolve, is_allowed=is_here_or_public)


def main() -> int:
    """Run the worker; return its exit status."""
    from embedding.serve.start import start  # noqa: PLC0415  not in the heartbeat, where it is spawned

    port, seed = map(int, sys.argv[1:])
    chaos, worker = Chaos(seed), start()
    model = worker.engine.loaded.result()
    marked_ids = model.tokenizer.tokenize(MARKED_TEXT, truncate=True).ids
    model.embed_images = chaos.around(model.embed_images, lambda pixels: not pixels.any())
    model.embed_texts = chaos.around(model.embed_texts, lambda text: text.ids == marked_ids)
    worker.actions.pipeline._fetcher = local_fetcher(port)
    signal.signal(signal.SIGUSR1, chaos.lose_device)
    return worker.run()


if __name__ == "__main__":
    sys.exit(main())
