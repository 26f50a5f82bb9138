"""The client's exceptions as values: they come through a pickle and a copy as they are."""

from __future__ import annotations

import copy
import inspect
import pickle

import numpy as np
import pytest

import embedding.client
from embedding.client import ClientError, Embeddings, ItemError, ItemsFailed, JobFailed, Refused


RESULT = Embeddings(
    np.array([[0.5, 1.0], [np.nan, np.nan]], np.float32),
    (None, ItemError(1, "DECODE_ERROR", "no picture")),
    "f" * 16,
    "demo",
)
MADE = {
    Refused: lambda: Refused(404, "no such page", "look elsewhere"),
    JobFailed: lambda: JobFailed("OVERLOADED", "full", retryable=True),
    ItemsFailed: lambda: ItemsFailed(RESULT),
}
TREE = [
    kind for _, kind in inspect.getmembers(embedding.client, inspect.isclass) if issubclass(kind, ClientError)
]
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def shown(value):
    """Return all that *value* holds as text."""
    if isinstance(value, BaseException):
        return [
            type(value),
            str(value),
            value.args,
            {name: shown(each) for name, each in vars(value).items()},
        ]
    if isinstance(value, Embeddings):
        return [value.vectors.tobytes(), value.vectors.dtype, value.errors, value.fingerprint, value.model]
    return value


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_every_exception_reaches_another_process(kind):
    """A pool of processes hands over the message, the fields, `partial` and notes of each; so does a copy."""
    fault = MADE.get(kind, lambda: kind("what is wrong"))()
    fault.partial = RESULT
    fault.add_note("while folder 7 was read")
    copies = [pickle.loads(pickle.dumps(fault, protocol)) for protocol in PROTOCOLS]  # noqa: S301  its own
    copies += [copy.copy(fault), copy.deepcopy(fault)]

    assert all(shown(each) == shown(fault) for each in copies)
