"""Buckets, padding, graphs and uploads of the path that CUDA takes; what a CPU can prove, it proves."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from embedding.intake.text import END, START, Tokens
from embedding.model import golden
from embedding.model.cuda import (
    IMAGE_BATCHES,
    TEXT_BATCHES,
    CudaEncoders,
    Graphs,
    PinnedUploads,
    fitting,
    image_examples,
    text_bucket,
    text_examples,
    text_lengths,
)
from embedding.model.embedder import EmbeddingModel
from embedding.model.loader import load_model


CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
CONTEXT = 77
ROOT = Path(__file__).parents[2]
# In a process of its own: torch's allocator is not quite the same afterwards.
FAILED_CAPTURE = """
import logging, torch
from embedding.model.cuda import CudaEncoders

logging.basicConfig()
device = torch.device("cuda:0")
encoders, stream = CudaEncoders(device), torch.cuda.current_stream(device)

def waits(batch):
    return batch.float() * batch.float().max().item()

with torch.inference_mode():
    encoders.capture(image=waits, text=waits, side=32, context_length=77)
    assert torch.cuda.current_stream(device) == stream
    staged = encoders.texts.stage(1, 2)
    staged.copy_(torch.tensor([[0, 1]]))
    print((encoders.texts.run(waits, staged) * 2).tolist())
"""


class FakeGraph:
    """A graph that runs its forward on the CPU, into the same outputs each time."""

    def __init__(self, forward, inputs) -> None:
        self.inputs = inputs
        self.outputs = forward(inputs).clone()
        self.replays = 0
        self._forward = forward

    def replay(self):
        self.replays += 1
        self.outputs.copy_(self._forward(self.inputs))


class StuckGraph(FakeGraph):
    """A graph that gives what it was captured with, whatever it is fed."""

    def replay(self):
        pass


class BrokenGraph(FakeGraph):
    """A graph whose outputs are no numbers."""

    def replay(self):
        self.outputs.fill_(torch.nan)


def halves(batch):
    """A forward that is easy to check: (B, 3) to (B, 3)."""
    return batch.float() / 2 + 1


def batches(*sizes):
    """Return a random batch of three numbers a row for each of *sizes*."""
    return [torch.randint(0, 256, (size, 3), dtype=torch.uint8) for size in sizes]


def run(graphs, batch, forward=halves):
    """Return a copy of what *graphs* make of *batch*."""
    staged = graphs.stage(*batch.shape)
    staged.copy_(batch)
    return graphs.run(forward, staged).clone()


def texts(*lengths):
    """Return tokens of a random text for each of *lengths*."""
    rng = np.random.default_rng(5)
    return [
        Tokens((START, *map(int, rng.integers(1, START, n - 2)), END), truncated=False, count=n)
        for n in lengths
    ]


def images(count):
    """Return *count* random pictures for the tiny model."""
    return list(np.random.default_rng(7).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8))


def assert_same(ours, expected, share=1e-6):
    """Assert that features are equal within *share* of the largest."""
    np.testing.assert_allclose(ours, expected, rtol=0, atol=share * np.abs(np.asarray(expected)).max())


@pytest.fixture(scope="module")
def model(tiny_folder):
    """The tiny model on the CPU, in fp32."""
    return load_model(tiny_folder, device="cpu", precision="fp32")


@pytest.fixture
def staged_model(tiny_folder):
    """The same on the path of CUDA, without graphs."""
    model = load_model(tiny_folder, device="cpu", precision="fp32")
    model._cuda = CudaEncoders(CPU)
    return model


class TestBuckets:
    @pytest.mark.parametrize(
        ("length", "bucket"),
        [(2, 16), (15, 16), (16, 16), (17, 32), (31, 32), (32, 32), (33, 77), (76, 77), (77, 77)],
    )
    def test_lengths(self, length, bucket):
        """A text goes to the shortest length that holds it."""
        assert text_bucket(length, CONTEXT) == bucket

    @pytest.mark.parametrize(
        ("context", "lengths"),
        [(8, (8,)), (16, (16,)), (17, (16, 17)), (32, (16, 32)), (33, (16, 32, 33)), (77, (16, 32, 77))],
    )
    def test_contexts(self, context, lengths):
        """The longest bucket is the model's context, and none is longer."""
        assert text_lengths(context) == lengths

    @pytest.mark.parametrize(
        ("count", "size"),
        [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (7, 8), (8, 8), (9, 16), (15, 16), (16, 16), (17, None)],
    )
    def test_batches(self, count, size):
        """A batch goes to the smallest graph that holds it; above the largest there is none."""
        captured = dict.fromkeys(torch.Size((size, 32, 32, 3)) for size in IMAGE_BATCHES)

        expected = size and torch.Size((size, 32, 32, 3))
        assert fitting(torch.Size((count, 32, 32, 3)), captured) == expected

    def test_lengths_do_not_mix(self):
        """A batch goes to no graph of another length."""
        captured = dict.fromkeys([torch.Size((8, 16)), torch.Size((4, 32))])

        assert fitting(torch.Size((4, 16)), captured) == (8, 16)
        assert fitting(torch.Size((5, 32)), captured) is None
        assert fitting(torch.Size((1, 77)), captured) is None


class TestExamples:
    def test_images(self):
        """There is a batch for every size of images, largest first, and no two pictures are alike."""
        examples = list(image_examples(32))

        assert [tuple(batch.shape) for batch in examples] == [(n, 32, 32, 3) for n in IMAGE_BATCHES[::-1]]
        assert all(len(batch.flatten(1).unique(dim=0)) == len(batch) for batch in examples)

    @pytest.mark.parametrize("context", [2, 16, 77])
    def test_texts(self, context):
        """There is a batch for every size and length of texts, each a start, words, an end and zeros."""
        examples = list(text_examples(context))

        assert {tuple(batch.shape) for batch in examples} == {
            (size, length) for size in TEXT_BATCHES for length in text_lengths(context)
        }
        for batch in examples:
            end = batch.argmax(dim=1)
            assert batch.dtype == torch.int64
            assert (batch[:, 0] == START).all()
            assert (batch == END).sum(dim=1).tolist() == [1] * len(batch)
            assert all(not row[at + 1 :].any() for row, at in zip(batch, end, strict=True))


class TestPadding:
    @pytest.mark.parametrize("length", [2, 15, 16, 17, 32, 33, 76, 77])
    def test_length(self, model, length):
        """Zeros behind a text up to its bucket change no feature of it."""
        ids = torch.tensor([text.ids for text in texts(length, length)])
        padded = torch.zeros(2, text_bucket(length, CONTEXT), dtype=torch.int64)
        padded[:, :length] = ids

        with torch.inference_mode():
            assert_same(model._text_features(padded), model._text_features(ids))

    @pytest.mark.parametrize("count", [1, 3, 5])
    def test_rows(self, model, count):
        """Rows behind a batch, whatever they hold, change no feature of it."""
        pictures = torch.from_numpy(np.stack(images(8)))
        tokens = next(iter(text_examples(CONTEXT)))

        with torch.inference_mode():
            for forward, batch in (model._image_features, pictures), (model._text_features, tokens):
                assert_same(forward(batch)[:count], forward(batch[:count]))


class TestGraphs:
    @pytest.fixture
    def graphs(self):
        """Graphs for batches of 4 and 2."""
        graphs = Graphs(torch.uint8, CPU)
        assert graphs.capture(halves, batches(4, 2), FakeGraph)
        return graphs

    @pytest.mark.parametrize(("count", "replayed"), [(1, 2), (2, 2), (3, 4), (4, 4), (5, None)])
    def test_small_batches_replay(self, graphs, count, replayed):
        """A batch up to the largest graph is replayed, a larger one runs plainly; both are right."""
        (batch,) = batches(count)
        before = {shape[0]: graph.replays for shape, graph in graphs._graphs.items()}

        assert run(graphs, batch).equal(halves(batch))

        after = {shape[0]: graph.replays for shape, graph in graphs._graphs.items()}
        assert [size for size in after if after[size] > before[size]] == ([replayed] if replayed else [])

    def test_nothing_is_left_of_the_batch_before(self, graphs):
        """A smaller batch after a larger one, in the same graph, gives its own features only."""
        for batch in batches(4, 3, 4, 3):
            assert run(graphs, batch).equal(halves(batch))

    @pytest.mark.parametrize("wrong", [StuckGraph, BrokenGraph])
    def test_wrong_graph_is_dropped(self, caplog, wrong):
        """A graph that does not give the forward's features is dropped with a warning, the others serve."""
        graphs = Graphs(torch.uint8, CPU)

        kept = graphs.capture(
            halves, batches(4, 2), lambda f, inputs: (wrong if len(inputs) == 2 else FakeGraph)(f, inputs)
        )

        assert kept
        assert list(graphs._graphs) == [(4, 3)]
        assert "dropped the CUDA graph for a batch of (2, 3)" in caplog.text
        (batch,) = batches(2)
        assert run(graphs, batch).equal(halves(batch))

    def test_failed_capture(self, caplog):
        """The first graph that cannot be captured ends it with one warning; earlier graphs serve."""
        tried = []

        def capture(forward, inputs):
            tried.append(len(inputs))
            if len(inputs) == 4:
                raise RuntimeError("operation not permitted when stream is capturing\nand much more")
            return FakeGraph(forward, inputs)

        graphs = Graphs(torch.uint8, CPU)

        assert not graphs.capture(halves, batches(8, 4, 2), capture)
        assert tried == [8, 4]
        assert list(graphs._graphs) == [(8, 3)]
        (warning,) = (record.message for record in caplog.records if record.levelno == logging.WARNING)
        assert warning == (
            "no CUDA graph for a batch of (4, 3) (operation not permitted when stream is capturing); "
            "going on without"
        )
        for batch in batches(2, 8, 9):
            assert run(graphs, batch).equal(halves(batch))


class TestModel:
    @pytest.mark.parametrize("captured", [False, True], ids=["plain", "graphs"])
    @pytest.mark.parametrize("count", [1, 3, 8, 9, 16, 17])
    def test_same_features(self, model, staged_model, captured, count):
        """On the path of CUDA the features are those of the plain path, in every size and length."""
        if captured:
            encoders = staged_model._cuda
            with torch.inference_mode():
                assert encoders.images.capture(staged_model._image_features, image_examples(32), FakeGraph)
                assert encoders.texts.capture(staged_model._text_features, text_examples(77), FakeGraph)
            assert len(encoders.images._graphs) == 5
            assert len(encoders.texts._graphs) == 12

        assert_same(staged_model.embed_images(images(count)), model.embed_images(images(count)))
        for longest in (9, 17, 77):
            tokens = texts(*[longest, 5, 8, 3, 2, 4, 9, 9, 2][:count])
            assert_same(staged_model.embed_texts(tokens), model.embed_texts(tokens))

    def test_warm_up_without_cuda(self, model):
        """Where there is no CUDA there is nothing to warm up."""
        model.warm_up()

        assert model._cuda is None

    def test_no_graphs_for_open_clip(self, staged_model, monkeypatch):
        """Towers of open_clip are run plainly."""
        monkeypatch.setattr(staged_model._cuda, "capture", lambda **_: pytest.fail("captured"))
        staged_model.identity = replace(staged_model.identity, architecture="open_clip")

        staged_model.warm_up()

    def test_what_is_captured(self, staged_model, monkeypatch):
        """Our own towers are captured for the model's side and context."""
        asked = {}
        monkeypatch.setattr(staged_model._cuda, "capture", lambda **given: asked.update(given))

        staged_model.warm_up()

        assert asked == {
            "image": staged_model._image_features,
            "text": staged_model._text_features,
            "side": 32,
            "context_length": CONTEXT,
        }

    def test_a_checked_model_is_warm(self, tiny_folder, monkeypatch):
        """A model is warmed up once when it is loaded, after its check."""
        warmed = []

        def warm_up(model):
            warmed.append(model)

        monkeypatch.setattr(EmbeddingModel, "warm_up", warm_up)

        model, _ = golden.load_checked(tiny_folder, device="cpu", precision="fp32")

        assert warmed == [model]


class TestUploads:
    def test_one_buffer(self):
        """The buffer is made anew only for more than it holds."""
        uploads = PinnedUploads(torch.int64, CPU)
        places = [uploads.stage(*shape).data_ptr() for shape in [(2, 3), (1, 6), (5,), (7,), (2, 3)]]

        assert places[0] == places[1] == places[2]
        assert places[2] != places[3] == places[4]

    @pytest.mark.parametrize("shape", [(2, 3), (9, 9)])
    def test_waits_for_the_last_copy(self, shape):
        """Nothing is staged while the last copy may still read the buffer."""

        class Copy:
            waited = 0

            def synchronize(self):
                self.waited += 1

        uploads = PinnedUploads(torch.uint8, CPU)
        uploads.stage(2, 3)
        uploads._copied = Copy()
        uploads.stage(*shape)

        assert uploads._copied.waited == 1


@needs_cuda
class TestOnDevice:
    @pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
    def test_graphs_give_the_plain_features(self, tiny_folder, precision, caplog):
        """Every graph is captured, and gives what the plain forward gives, for every size and length."""
        plain = load_model(tiny_folder, device="cuda:0", precision=precision)
        model = load_model(tiny_folder, device="cuda:0", precision=precision)
        model.warm_up()

        assert caplog.text == ""
        assert len(model._cuda.images._graphs) == 5
        assert len(model._cuda.texts._graphs) == 12
        share = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2}[precision]  # other sizes, other orders of sums
        for count in [*range(1, 18), 3, 1]:
            assert_same(model.embed_images(images(count)), plain.embed_images(images(count)), share)
            for longest in (9, 17, 77):
                tokens = texts(*[longest, *range(2, 19)][:count])
                assert_same(model.embed_texts(tokens), plain.embed_texts(tokens), share)

    def test_failed_capture_leaves_the_device_usable(self):
        """A forward that waits for the device cannot be captured; all goes on, and on the same stream."""
        done = subprocess.run(
            [sys.executable, "-c", FAILED_CAPTURE], capture_output=True, text=True, check=True, cwd=ROOT
        )

        assert done.stdout == "[[0.0, 2.0]]\n"
        assert done.stderr.count("no CUDA graph for a batch of (16, 32, 32, 3)") == 1
        assert done.stderr.count("CUDA graph") == 1

    def test_rapid_reuse(self):
        """A buffer filled anew right after its upload began does not change what is uploaded."""
        uploads = PinnedUploads(torch.uint8, CUDA)
        targets = [torch.empty(1 << 24, dtype=torch.uint8, device=CUDA) for _ in range(8)]
        for number, target in enumerate(targets):
            torch.cuda._sleep(10_000_000)  # the copy waits behind this on its stream
            staged = uploads.stage(1 << 24)
            staged.fill_(number)
            assert staged.is_pinned()
            uploads.send(staged, target)

        assert [target.unique().tolist() for target in targets] == [[number] for number in range(8)]
