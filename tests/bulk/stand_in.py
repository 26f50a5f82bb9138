"""A backend whose vectors are made of a row's bytes, so that one in a wrong row shows; runs with it."""

from __future__ import annotations

import asyncio
import hashlib
import os
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow.parquet as pq

from embedding.client.bulk.flow import Answer
from embedding.client.bulk.folder import Model, RunFolder
from embedding.client.bulk.progress import Progress
from embedding.client.bulk.session import Order, Session
from embedding.client.bulk.sources import Reading
from embedding.client.bulk.window import Window
from embedding.client.errors import ItemError


DIM = 6


def vector_of(row):
    """Return the vector that belongs to *row* and to no other."""
    content = row.picture() if row.kind in ("file", "bytes") else row.value.encode()
    digest = hashlib.sha256(content).digest()
    return np.frombuffer(digest[: DIM * 4], np.uint32).astype(np.float32) / 2**32


class StandIn:
    """Answers jobs out of order; ids with a word of *failing* fail, and after *ends_after* rows it raises."""

    max_bytes = 1 << 20

    def __init__(self, *, failing=(), fingerprint="one", ends_after=None, max_items=3, fault=None) -> None:
        self.window = Window(8)
        self.max_items = max_items
        self.seen = []
        self._failing, self._fingerprint = failing, fingerprint
        self._ends_after, self._fault = ends_after, fault

    async def embed(self, rows):
        await asyncio.sleep(0.001 * (len(self.seen) * 7 % 5))
        self.seen += [row.id for row in rows]
        if self._ends_after is not None and len(self.seen) >= self._ends_after:
            raise self._fault
        outcomes = [
            ItemError(0, "DECODE_ERROR", "made to fail")
            if any(word in row.id for word in self._failing)
            else vector_of(row)
            for row in rows
        ]
        some = any(isinstance(outcome, np.ndarray) for outcome in outcomes)
        return Answer(outcomes, Model(self._fingerprint, "stand-in") if some else None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_) -> None:
        return None


def run(out, *sources, backend=None, how="auto", column=None, id_column=None, **more):
    """Do what the command does, with *backend*; return the result and the backend."""
    order = Order(
        tuple(map(str, sources)), Reading(how, column, id_column), Path(out), **{"dtype": "float32", **more}
    )
    backend = backend or StandIn()
    with RunFolder(order.out) as folder:
        session = Session(order, folder)
        if not session.prepare():
            return session.result(), backend
        return session.run(backend, Progress(backend.window, None)), backend


def table(out):
    """Return ids and vectors (N, D) of a Parquet output."""
    read = pq.read_table(out)
    dim = read["vector"].type.list_size
    return read["id"].to_pylist(), read["vector"].combine_chunks().flatten().to_numpy().reshape(-1, dim)


STEPS = ("replace", "unlink", "rmdir", "mkdir")


@contextmanager
def dying_at(step):
    """Let this process end, as if killed, just before its *step*-th change of names on disk."""
    left = [step]
    originals = {name: getattr(os, name) for name in STEPS}

    def guarded(name):
        def act(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)
            return originals[name](*args, **kwargs)

        return act

    for name in STEPS:
        setattr(os, name, guarded(name))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(os, name, original)


def killed_at(step, work):
    """Run *work* in a child that dies at *step*; return whether it did, else it has finished."""
    child = os.fork()
    if child == 0:
        with dying_at(step):
            try:
                work()
            except BaseException:  # noqa: BLE001  nothing of pytest may go on in a child
                os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, 9)
    return os.waitstatus_to_exitcode(status) == 9
