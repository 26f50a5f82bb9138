"""Whatever answers, in whatever shape, a call ends in its vectors or in an exception of the client's."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding.client import AsyncClient, ClientError
from embedding.client.embeddings import Collected
from embedding.client.errors import BadAnswer
from embedding.client.retries import Attempts
from embedding.client.serverless import ServerlessTransport


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
ERRORS = st.fixed_dictionaries({}, optional={"code": ANY, "message": ANY, "retryable": ANY})
RESULTS = st.fixed_dictionaries({}, optional={"embedding": ANY, "error": ERRORS | ANY})
ANSWERS = ANY | st.fixed_dictionaries(
    {"results": st.lists(RESULTS | ANY, max_size=3) | ANY}, optional={"fingerprint": ANY, "model": ANY}
)
STATES = st.sampled_from(["COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT", "IN_QUEUE", "odd"])
STANDINGS = ANY | st.fixed_dictionaries(
    {"status": STATES | ANY}, optional={"id": st.text(max_size=5) | ANY, "output": ANSWERS, "error": ANY}
)


class Canned:
    """A wire that answers everything alike, and has no time to ask twice."""

    def __init__(self, answer) -> None:
        self._answer = answer

    def attempts(self, _timeout_s):
        """Return one attempt and no time."""
        return Attempts.within(0, count=1)

    async def send(self, *_request):
        """Return the answer."""
        return self._answer

    async def aclose(self):
        """Close nothing."""


class Direct(Canned):
    """A transport that answers everything alike."""

    max_request_bytes = 10_000

    async def run(self, _job_input):
        """Return the answer."""
        return self._answer

    async def health(self):
        """Return the answer."""
        return self._answer


def ends_well(transport):
    """Embed two texts and ask for health; whatever is raised but the client's own goes on."""

    async def call():
        client = AsyncClient(transport)
        with suppress(ClientError):
            result = await client.embed_texts(["a", "b"], on_error="collect")
            assert len(result) == len(result.vectors) == 2
        with suppress(ClientError):
            assert isinstance(await client.health(), dict)

    asyncio.run(call())


@pytest.mark.usefixtures("short_pauses")
class TestAnyAnswer:
    @given(ANSWERS)
    def test_of_a_worker(self, answer):
        """Any JSON in the place of a batch's results is vectors, errors, or BadAnswer."""
        ends_well(Direct(answer))

    @given(STANDINGS)
    def test_of_the_platform(self, standing):
        """Any JSON in the place of how a job stands is its end, or an exception."""
        ends_well(ServerlessTransport(Canned(standing), "", None, timeout_s=0, is_long=False, hint=""))


@pytest.mark.parametrize(
    "embeddings",
    [
        [[1.0], [1.0, 2.0]],
        [[[1.0]]],
        [5],
        [float("nan")],
        [[float("inf")]],
        [[1e39]],
        [[10**400]],
        ["AAA"],
        [""],
        [[]],
    ],
    ids=lambda embeddings: str(embeddings)[:20],
)
def test_vectors_that_cannot_be(embeddings):
    """Vectors of different or no length, tables, numbers, NaN and what no float32 holds are no answer."""
    answer = {"results": [{"embedding": embedding} for embedding in embeddings]}

    with pytest.raises(BadAnswer):
        Collected().add(range(len(embeddings)), answer, "float32")


def test_later_jobs_have_the_length_of_the_first():
    """A second answer of other vectors is refused, as it cannot be of the same model."""
    collected = Collected()
    collected.add([0], {"results": [{"embedding": [1.0, 2.0]}]}, "float32")

    with pytest.raises(BadAnswer):
        collected.add([1], {"results": [{"embedding": [1.0]}]}, "float32")
    assert np.array_equal(collected.vectors[0], [1, 2])


def test_what_is_counted_while_a_call_ends():
    """Vectors and errors are as many, also where a generator is still read as they are put together."""

    class Counting(Collected):
        """A call whose next item is read whenever its number is asked for."""

        read = 0

        @property
        def count(self):
            self.read += 1
            return self.read

        @count.setter
        def count(self, _count):
            pass

    whole = Counting().whole()
    assert len(whole.vectors) == len(whole.errors)
