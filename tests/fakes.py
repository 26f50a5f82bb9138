"""A worker without weights: features are the picture's mean colour, or numbers drawn from the text."""

from __future__ import annotations

import base64
import io
import zlib
from functools import partial

import numpy as np
from PIL import Image

from embedding.actions import Actions, JobLimits
from embedding.cached_pipeline import CachedPipeline
from embedding.contract.responses import Served
from embedding.errors import DownloadError, TextTooLong
from embedding.intake.image import Preprocess
from embedding.intake.text import Tokens
from embedding.model.engine import Engine
from embedding.pipeline import Pipeline, PipelineLimits
from embedding.self_test import SelfTest


DIM = 8
BLACK = 0


class FakeTokenizer:
    """A word is a token."""

    def tokenize(self, text, *, truncate):
        words = text.split()
        if len(words) > 75 and not truncate:
            raise TextTooLong(f"text has {len(words) + 2} tokens; the limit is 77")
        ids = (1, *(zlib.crc32(word.encode()) + 2 for word in words[:75]), 2)
        return Tokens(ids=ids, truncated=len(words) > 75, count=len(words) + 2)


class FakeModel:
    """Known answers; records its batches; breaks on the text 'poison' and on a black picture."""

    def __init__(self) -> None:
        self.preprocess = Preprocess.from_config({"size": 8})
        self.tokenizer = FakeTokenizer()
        self.batches = []

    def embed_images(self, pixels):
        self.batches.append(len(pixels))
        if any((picture == BLACK).all() for picture in pixels):
            msg = "a forward broke"
            raise RuntimeError(msg)
        colour = np.stack(pixels).reshape(len(pixels), -1, 3).mean(axis=1) / 255 + 0.01
        return np.concatenate([colour, np.ones((len(pixels), DIM - 3))], axis=1).astype(np.float32)

    def embed_texts(self, tokens):
        self.batches.append(len(tokens))
        poison = FakeTokenizer().tokenize("poison", truncate=True).ids
        if any(text.ids == poison for text in tokens):
            msg = "a forward broke"
            raise RuntimeError(msg)
        return np.stack([np.random.default_rng(text.ids).normal(size=DIM) for text in tokens]).astype(
            np.float32
        )


class FakeDownloads:
    """Serves pictures by URL and records what was asked."""

    def __init__(self, pictures=None) -> None:
        self.pictures = pictures or {}
        self.asked = []

    def fetch(self, url):
        self.asked.append(url)
        if url not in self.pictures:
            raise DownloadError("the image could not be downloaded", retryable=True)
        return self.pictures[url]


def png(colour=(255, 0, 0), size=(10, 10)):
    """Return a PNG of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def png_base64(colour=(255, 0, 0)):
    """Return a PNG of one colour in base64."""
    return base64.b64encode(png(colour)).decode()


def fake_actions(
    *, model=None, downloads=None, verifier=None, expected=None, cache_max_bytes=0, operator=None, **limits
):
    """Return actions over a fake model; *limits* are JobLimits', *expected* the self-test's."""
    fake = model or FakeModel()
    kind = partial(CachedPipeline, max_bytes=cache_max_bytes) if cache_max_bytes else Pipeline
    pipeline = kind(
        Engine(lambda: fake),
        downloads or FakeDownloads(),
        PipelineLimits(max_image_bytes=1_000_000, download_concurrency=4, decode_threads=2),
    )
    self_test = SelfTest(pipeline.engine, expected, bound=0.99999, timeout_s=1.0)
    served = Served("served", "Fake", "none", "cpu", "0123456789abcdef", DIM)
    bounds = {"max_batch_size": 8, "max_response_bytes": 1_000_000, "job_timeout_s": 20.0} | limits
    return Actions(
        pipeline,
        served,
        JobLimits(**bounds),
        verifier=verifier,
        self_test=self_test,
        about={"precision": "fp32"},
        operator=operator,
    )
