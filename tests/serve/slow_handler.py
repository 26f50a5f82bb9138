"""The real worker with one change: the forward of a text sleeps one second for each token of it."""

from __future__ import annotations

import sys
import time


if __name__ != "__mp_main__":
    from embedding.serve.start import start

    worker = start()
    fast = worker.model.embed_texts

    def embed_texts(tokens):
        """Sleep a second for each word of the longest text, then embed as usual."""
        time.sleep(max(len(text.ids) - 2 for text in tokens))
        return fast(tokens)

    worker.model.embed_texts = embed_texts

if __name__ == "__main__":
    sys.exit(worker.run())
