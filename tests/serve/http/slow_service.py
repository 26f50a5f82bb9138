"""The real service with one change: a forward of texts sleeps a tenth of a second for each word."""

from __future__ import annotations

import sys
import time

from embedding.serve.start import start


def slow_down(loading):
    """Make the loaded model slow."""
    model = loading.result().actions._pipeline.engine.loaded.result()
    embed_texts = model.embed_texts

    def slowly(tokens):
        time.sleep(0.1 * max(len(text.ids) - 2 for text in tokens))
        return embed_texts(tokens)

    model.embed_texts = slowly


if __name__ == "__main__":
    service = start()
    service._loading.add_done_callback(slow_down)
    sys.exit(service.run())
