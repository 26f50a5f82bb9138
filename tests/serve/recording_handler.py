"""The real worker, which also tells in its log of every file that it opens for writing once it serves."""

from __future__ import annotations

import os
import sys


WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
EVENTS = {"os.mkdir", "os.rename", "os.remove", "os.symlink", "os.link", "os.truncate", "shutil.copyfile"}


def record(event, args):
    """Print the name of what *event* changes on the disk."""
    if event in EVENTS or (event == "open" and isinstance(args[2], int) and args[2] & WRITES):
        print(f"@disk {event} {args[0]!r}", flush=True)


if __name__ != "__mp_main__":
    from embedding.serve.start import start

    worker = start()
    sys.addaudithook(record)
    open(os.devnull, "w").close()  # noqa: PTH123  shows that it is watched

if __name__ == "__main__":
    sys.exit(worker.run())
