"""What a model on CUDA does beyond its forward: page-locked uploads, and graphs of small batches.

A small forward is some two hundred kernels that each run for less time than Python takes to launch them; a
graph launches all of them at once. It fixes shapes and addresses. So a batch is written into the first rows
of the next larger graph's inputs, whose other rows keep what they held (no row reads another), and texts are
padded to one of a few lengths, which changes no feature: the text tower is causal, and zero is not its
highest token.

Graphs share one pool of memory, so replaying one may overwrite the outputs of another: outputs are to be
copied before the next replay. Each graph is compared with the plain forward when it is captured, on
inputs that it was not captured with. Whatever has no graph runs plainly. One thread at a time.

Reference: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from embedding.intake.text import END, START


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    Forward = Callable[[Tensor], Tensor]

log = logging.getLogger(__name__)

IMAGE_BATCHES: Final = (1, 2, 4, 8, 16)
TEXT_BATCHES: Final = (1, 2, 4, 8)
TEXT_LENGTHS: Final = (16, 32)  # and the model's context
MIN_COSINE: Final = 0.9999
_WARM_UPS: Final = 3  # libraries choose kernels and allocate in the first runs, which no graph may record


class PinnedUploads:
    """One buffer of *dtype* in page-locked memory, grown by need, through which batches reach *device*.

    Features are copied back, and so waited for, before the next batch comes; a second buffer would never be
    used. The event keeps the buffer from being overwritten where a forward failed before that.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._device = device
        self._buffer = torch.empty(0, dtype=dtype)
        self._copied: torch.cuda.Event | None = None

    def stage(self, *shape: int) -> Tensor:
        """Return the start of the buffer as *shape*, to be filled, once its last copy has ended."""
        if self._copied:
            self._copied.synchronize()
        count = math.prod(shape)
        if count > len(self._buffer):
            pinned = self._device.type == "cuda"
            self._buffer = torch.empty(count, dtype=self._buffer.dtype, pin_memory=pinned)
        return self._buffer[:count].view(shape)

    def send(self, staged: Tensor, target: Tensor) -> Tensor:
        """Start the copy of *staged* into *target* on the current stream; return *target*."""
        target.copy_(staged, non_blocking=True)
        if self._device.type == "cuda":
            self._copied = torch.cuda.Event()
            self._copied.record(torch.cuda.current_stream(self._device))
        return target


class Graph(Protocol):
    """A forward captured for one shape: `outputs` are the features of `inputs` after each replay."""

    inputs: Tensor
    outputs: Tensor

    def replay(self) -> None:
        """Run the forward on the current stream."""


class CudaGraph:
    """*forward* of *inputs*, on the device, captured on *stream* with intermediates in *pool*.

    Raises RuntimeError if it cannot be captured.
    """

    def __init__(self, forward: Forward, inputs: Tensor, *, pool: Any, stream: torch.cuda.Stream) -> None:
        current = torch.cuda.current_stream()
        self.inputs = inputs
        self._graph = torch.cuda.CUDAGraph()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):  # a failed capture alone would leave the thread on it
            for _ in range(_WARM_UPS):
                forward(inputs)
            # Other threads may use the device meanwhile, as for its free memory.
            with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                self.outputs = forward(inputs)
        current.wait_stream(stream)

    def replay(self) -> None:
        """Run the forward on the current stream."""
        self._graph.replay()


class Graphs:
    """One encoder on *device*, fed with batches of *dtype*, with graphs for some of their shapes."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._device = device
        self._uploads = PinnedUploads(dtype, device)
        self._graphs: dict[torch.Size, Graph] = {}  # by the shape of their inputs

    def stage(self, *shape: int) -> Tensor:
        """Return memory of *shape* (B, ...) for the next batch, to be filled and given to `run`."""
        return self._uploads.stage(*shape)

    def run(self, forward: Forward, staged: Tensor) -> Tensor:
        """Return the features (B, D) of *staged*, on the device; the next run may overwrite them."""
        shape = fitting(staged.shape, self._graphs)
        if shape is None:
            return forward(self._uploads.send(staged, torch.empty_like(staged, device=self._device)))
        graph, count = self._graphs[shape], len(staged)
        self._uploads.send(staged, graph.inputs[:count])
        graph.replay()
        return graph.outputs[:count]

    def capture(
        self, forward: Forward, examples: Iterator[Tensor], capture: Callable[[Forward, Tensor], Graph]
    ) -> bool:
        """Capture *forward* for the shape of each of *examples*, and keep what proves to be right on them.

        The first that cannot be captured ends it, with a warning; return whether there was none. After one,
        torch 2.11 must capture nothing more and cannot empty its cache, since its allocator believes that
        the capture goes on (https://github.com/pytorch/pytorch/pull/180395); forwards are not affected.
        """
        for example in examples:
            shape = tuple(example.shape)
            try:
                graph = capture(forward, torch.zeros_like(example, device=self._device))
                graph.inputs.copy_(example)
                graph.replay()
                cosine = float(F.cosine_similarity(graph.outputs, forward(graph.inputs)).min())
            except RuntimeError as fault:
                reason = (str(fault).splitlines() or [type(fault).__name__])[0]
                log.warning("no CUDA graph for a batch of %s (%s); going on without", shape, reason)
                return False
            if cosine >= MIN_COSINE:
                self._graphs[example.shape] = graph
            else:
                log.warning("dropped the CUDA graph for a batch of %s: its cosine is %.6f", shape, cosine)
        return True


class CudaEncoders:
    """Both encoders on the CUDA device *device*."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.images = Graphs(torch.uint8, device)
        self.texts = Graphs(torch.int64, device)

    def capture(self, *, image: Forward, text: Forward, side: int, context_length: int) -> None:
        """Capture graphs of both forwards, for pictures of *side* pixels and every bucket of lengths."""
        with torch.cuda.device(self._device):
            capture = partial(CudaGraph, pool=torch.cuda.graph_pool_handle(), stream=torch.cuda.Stream())
            if self.images.capture(image, image_examples(side), capture):
                self.texts.capture(text, text_examples(context_length), capture)


def fitting(shape: torch.Size, captured: dict[torch.Size, Graph]) -> torch.Size | None:
    """Return the one of *captured* that takes a batch of *shape* with the fewest rows to spare, if any."""
    fit = (size for size in captured if size[1:] == shape[1:] and size[0] >= shape[0])
    return min(fit, key=lambda size: size[0], default=None)


def text_lengths(context_length: int) -> tuple[int, ...]:
    """Return the lengths, in tokens, that texts are padded to."""
    return (*(length for length in TEXT_LENGTHS if length < context_length), context_length)


def text_bucket(length: int, context_length: int) -> int:
    """Return the length that a batch is padded to whose longest text has *length* tokens."""
    return next(bucket for bucket in text_lengths(context_length) if bucket >= length)


def image_examples(side: int) -> Iterator[Tensor]:
    """Yield random batches (B, side, side, 3) uint8 for each of IMAGE_BATCHES, largest first.

    In this order smaller graphs fit into the memory of larger ones.
    """
    rng = np.random.default_rng(0)
    for size in reversed(IMAGE_BATCHES):
        yield torch.from_numpy(rng.integers(0, 256, (size, side, side, 3), dtype=np.uint8))


def text_examples(context_length: int) -> Iterator[Tensor]:
    """Yield random tokens (B, L) for each of TEXT_BATCHES and `text_lengths`, largest first."""
    rng = np.random.default_rng(0)
    for length in reversed(text_lengths(context_length)):
        for size in reversed(TEXT_BATCHES):
            tokens = rng.integers(1, START, (size, length))
            tokens[:, 0] = START
            for row, end in zip(tokens, rng.integers(1, length, size), strict=True):
                row[end], row[end + 1 :] = END, 0
            yield torch.from_numpy(tokens)
