"""The real service with two changes: a forward of texts sleeps a tenth of a second for each word, and one of
forty words and more breaks the device for good.
"""

from __future__ import annotations

import sys
import time

import torch

from embedding.serve.start import start


DEADLY_WORDS = 40


def slow_down(loading):
    """Make the loaded model slow."""
    model = loading.result().actions.pipeline.engine.loaded.result()
    embed_texts = model.embed_texts

    def slowly(tokens):
        words = max(len(text.ids) - 2 for text in tokens)
        if words >= DEADLY_WORDS:
            raise torch.AcceleratorError("the device has failed", 1)
        time.sleep(0.1 * words)
        return embed_texts(tokens)

    model.embed_texts = slowly


if __name__ == "__main__":
    service = start()
    service._loading.add_done_callback(slow_down)
    sys.exit(service.run())
