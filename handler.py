"""RunPod entry point.

RUNPOD_SERVERLESS=1 takes jobs from the queue, or runs test_input.json once where there is no queue.
Without it the smoke test proves that this machine can embed. The model is loaded once, when this file is
imported. The SDK's heartbeat is a process of its own, which imports this file again as `__mp_main__` where
processes are spawned: it needs no model.
"""

import signal
import sys


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a start without a traceback

if __name__ != "__mp_main__":
    from embedding.serve.start import start

    worker = start()
    handler = worker.handler

if __name__ == "__main__":
    sys.exit(worker.run())
