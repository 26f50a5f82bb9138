"""What callers are given for images and texts: the same of a queue and of the HTTP service."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedding.client import ClientError, Closed, IdentityWarning, ItemsFailed, JobFailed
from embedding.serve.smoke import bundled_picture
from tests.client.workers import BATCH_SIZE, COMMIT, SECRET


PICTURE = Path(__file__).parents[2] / "embedding" / "data" / "red_circle.jpg"
ENCODED = bundled_picture()
PIXELS = np.asarray(Image.open(io.BytesIO(ENCODED)))
KINDS = {
    "path": PICTURE,
    "name": str(PICTURE),
    "bytes": ENCODED,
    "bytearray": bytearray(ENCODED),
    "data URI": f"data:image/jpeg;base64,{base64.b64encode(ENCODED).decode()}",
    "Pillow": Image.open(io.BytesIO(ENCODED)),
    "array": PIXELS,
}
WORDS = ["red", "green", "blue", "yellow", "circle", "square", "triangle"]


def texts(count):
    """Return *count* texts of which neighbours differ."""
    return [f"a {WORDS[index % 7]} {WORDS[index % 5]} {WORDS[index % 3]}" for index in range(count)]


class TestVectors:
    def test_every_kind_of_image_is_one_picture(self, client):
        """A path, a name, bytes, a data URI, a Pillow image and an array give one vector, of length 1."""
        result = client.embed_images(list(KINDS.values()))

        assert result.vectors.shape == (len(KINDS), 512)
        assert result.vectors.dtype == np.float32
        assert np.allclose(result.vectors, result.vectors[0], atol=1e-5)
        assert np.allclose(np.linalg.norm(result.vectors, axis=1), 1, atol=1e-6)
        assert result.errors == (None,) * len(KINDS)

    def test_one_is_a_row_of_many(self, client):
        """One image and one text give vectors of one dimension, those of the list."""
        picture, text = client.embed_image(PICTURE), client.embed_text("a red circle")

        assert picture.shape == text.shape == (512,)
        assert np.allclose(client.embed_texts(["a red circle"]).vectors[0], text, atol=1e-5)
        assert picture @ text > picture @ client.embed_text("a blue square") + 0.2

    def test_images_and_texts_mix(self, client):
        """A batch of both is in the order of its items."""
        items = [{"text": "a red circle"}, {"image": PICTURE}, {"text": "a blue square"}]
        vectors = client.embed_batch(items).vectors

        assert np.allclose(vectors[1], client.embed_image(PICTURE), atol=1e-5)
        assert vectors[1] @ vectors[0] > vectors[1] @ vectors[2]

    def test_options_travel(self, client):
        """Vectors may keep their length, and may travel as float16 at the cost of a thousandth."""
        exact = client.embed_text("a red circle")
        long = client.embed_text("a red circle", normalize=False)

        assert np.linalg.norm(long) > 1.5
        assert np.allclose(long / np.linalg.norm(long), exact, atol=1e-5)
        assert np.abs(client.embed_text("a red circle", dtype="float16") - exact).max() < 1e-3
        assert not np.array_equal(client.embed_text("a red circle", dtype="float16"), exact)

    def test_answers_name_their_model(self, client):
        """The result says which model made it, so that vectors can be kept apart."""
        result = client.embed_texts(["a red circle"])

        assert (result.model, len(result.fingerprint)) == ("demo", 16)
        assert client.health()["fingerprint"] == result.fingerprint


class TestMany:
    @pytest.mark.parametrize("count", [0, 1, BATCH_SIZE - 1, BATCH_SIZE, BATCH_SIZE + 1, 150])
    def test_order_is_kept(self, client, count):
        """However many there are, each row is the vector of its text; the worker takes only 16 at once."""
        wanted = {text: client.embed_text(text) for text in set(texts(min(count, 3)))}
        result = client.embed_texts(texts(count))

        assert len(result) == len(result.vectors) == count
        assert all(
            np.allclose(result.vectors[index], wanted[text], atol=1e-5)
            for index, text in enumerate(texts(count))
            if text in wanted
        )

    def test_no_job_is_larger_than_what_the_worker_took(self, client):
        """A job that is refused for its number of items is halved, and those after it are sent halved."""
        client.embed_texts(texts(100))

        assert client._client._max_batch_size == BATCH_SIZE

    def test_generators_are_read_as_needed(self, backend):
        """What a generator yields is held for the jobs in flight, and not much longer."""
        read, most = [], []

        def pictures():
            for index in range(60):
                read.append(index)
                yield PIXELS

        with backend.client(concurrency=1, max_batch_size=4) as client:
            run, transport = client._client._transport.run, client._client._transport

            async def counted(job_input):
                answer = await run(job_input)
                most.append(len(read))
                return answer

            transport.run = counted
            assert len(client.embed_images(pictures())) == 60

        assert most[0] <= 3 * 4
        assert len(most) == 15

    def test_answers_that_would_be_too_large_are_halved(self, client):
        """16 vectors of float32 are more than this worker may answer; the call does not show it."""
        assert not any(client.embed_texts(texts(BATCH_SIZE)).errors)


class TestItemsThatFail:
    SOURCES = (PICTURE, b"junk", "missing.png", Path(__file__).parent, "https://127.0.0.1/x.png")
    CODES = (None, "DECODE_ERROR", "INVALID_INPUT", "INVALID_INPUT", "URL_REFUSED")

    def test_are_collected(self, client):
        """Each has its error in its place and a row of NaN; the others have their vectors."""
        result = client.embed_images(self.SOURCES, on_error="collect")

        assert tuple(error and error.code for error in result.errors) == self.CODES
        assert np.isnan(result.vectors).all(axis=1).tolist() == [False, True, True, True, True]
        assert result.errors[2].message == "missing.png cannot be read: No such file or directory"
        assert result.errors[3].message.endswith("cannot be read: Is a directory")

    def test_are_raised_with_the_others_vectors(self, client):
        """The exception tells the first faults, and holds what there is."""
        with pytest.raises(
            ItemsFailed, match=r"^4 of 5 items failed: item 1: DECODE_ERROR.*and 1 more$"
        ) as e:
            client.embed_images(self.SOURCES)

        assert np.allclose(e.value.result.vectors[0], client.embed_image(PICTURE), atol=1e-5)

    def test_texts_that_are_too_long(self, client):
        """A long text is cut unless the caller asks not to."""
        long = "a red circle " * 200

        assert client.embed_text(long).shape == (512,)
        with pytest.raises(ItemsFailed, match="TEXT_TOO_LONG"):
            client.embed_text(long, truncate=False)

    def test_all_of_them(self, client):
        """Where nothing has a vector, there are no dimensions."""
        result = client.embed_images([b"junk"], on_error="collect")

        assert result.vectors.shape == (1, 0)
        assert result.fingerprint is not None


class TestArguments:
    @pytest.mark.parametrize(
        ("call", "kind", "words"),
        [
            (lambda c: c.embed_texts("a text"), TypeError, "a list is needed"),
            (lambda c: c.embed_images(b"bytes"), TypeError, "a list is needed"),
            (lambda c: c.embed_images(PIXELS), TypeError, "a list is needed"),
            (lambda c: c.embed_images(PICTURE), TypeError, "a list is needed"),
            (lambda c: c.embed_images(KINDS["Pillow"]), TypeError, "a list is needed"),
            (lambda c: c.embed_images([None]), TypeError, "item 0: an image must be a path"),
            (lambda c: c.embed_images([PIXELS, PIXELS / 255]), ValueError, "item 1: .* not float64; of 0.0"),
            (lambda c: c.embed_texts(["a", 5]), TypeError, "item 1: a text must be a str, not int"),
            (lambda c: c.embed_texts(["\ud800"]), ValueError, "item 0: .*Unicode"),
            (lambda c: c.embed_batch([{"txt": "a"}]), TypeError, "item 0: an item of a batch is"),
            (lambda c: c.embed_texts(["a"], dtype="float64"), ValueError, "dtype must be float32 or float16"),
            (lambda c: c.embed_texts(["a"], on_error="log"), ValueError, "on_error must be raise or collect"),
            (lambda c: c.embed_texts(1 / 0 for _ in "a"), ZeroDivisionError, "division"),
        ],
    )
    def test_wrong_ones_are_told_as_such(self, client, call, kind, words):
        """A wrong argument is an exception of its own kind that names the item, and the client goes on."""
        with pytest.raises(kind, match=words):
            call(client)

        assert client.embed_text("a red circle").shape == (512,)

    def test_four_dimensions_are_a_list_of_pictures(self, client):
        """A stack of pictures is embedded one by one."""
        assert len(client.embed_images(np.stack([PIXELS, PIXELS]))) == 2


class TestAccess:
    @pytest.mark.parametrize(
        ("secret", "hint"),
        [(None, "give the worker's EMBEDDING_HMAC_SECRET"), ("w" * 32, "is secret the worker's")],
    )
    def test_whoever_is_not_let_in_is_told_what_to_do(self, backend, secret, hint):
        """A missing or wrong secret ends the call at once, whatever was asked for."""
        with backend.client(secret=secret) as client, pytest.raises(JobFailed, match=hint) as refused:
            client.embed_texts(texts(20), on_error="collect")

        assert refused.value.code == "AUTH_FAILED"
        assert "w" * 32 not in str(refused.value)

    def test_newest_of_several_secrets_signs(self, backend):
        """The setting of a worker serves its callers as it is."""
        ring = f"old:{'o' * 32},default:{SECRET}"

        with backend.client(secret=ring) as client:
            assert client.embed_text("a red circle").shape == (512,)


class TestIdentity:
    def test_expected_worker_is_no_news(self, backend):
        """The commit that was expected is told by health, and warned of nowhere."""
        with backend.client(expected_commit=COMMIT[:8]) as client:
            client.embed_text("a red circle")
            told = client.health()

        assert (told["identityMatches"], told["identityMismatchReason"]) == (True, None)

    @pytest.mark.parametrize(
        ("expected", "words", "matches"),
        [
            ({"expected_commit": "f" * 40}, "is not the expected one: .*0123456789ab", False),
            ({"expected_digest": "f" * 64}, "may not be the expected one: .*declares no image digest", None),
        ],
    )
    def test_another_worker_is_warned_of_once(self, backend, expected, words, matches):
        """The vectors are given all the same."""
        with backend.client(**expected) as client:
            with pytest.warns(IdentityWarning, match=words) as told:
                vectors = [client.embed_text("a red circle") for _ in range(3)]
            assert client.health()["identityMatches"] is matches

        assert len(told) == 1
        assert len(vectors) == 3

    def test_nothing_expected_is_nothing_told(self, client):
        """Without expectations health is the worker's own."""
        with warnings.catch_warnings(record=True, action="always") as told:
            client.embed_text("a red circle")

        assert told == []
        assert "identityMatches" not in client.health()


class TestUse:
    def test_by_several_threads(self, client):
        """Eight threads share one client, and each gets its own answers."""
        found = {}
        wanted = {text: client.embed_text(text) for text in texts(8)}

        def embed(text):
            found[text] = client.embed_texts([text] * 20).vectors

        threads = [threading.Thread(target=embed, args=(text,)) for text in wanted]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)

        assert all(np.allclose(found[text], vector, atol=1e-5) for text, vector in wanted.items())

    def test_inside_a_running_loop(self, client):
        """A plain client works where a loop runs already, as in a notebook."""

        async def cell():
            return client.embed_text("a red circle")

        assert asyncio.run(cell()).shape == (512,)

    def test_asynchronous_client_in_two_loops(self, backend):
        """A client that one `asyncio.run` has used serves the next."""
        client = backend.client()._client

        async def embed(*, last):
            try:
                return await client.embed_texts(["a red circle"])
            finally:
                await client.aclose() if last else await client._transport._wire._http.aclose()

        assert [len(asyncio.run(embed(last=last))) for last in (False, True)] == [1, 1]

    def test_many_tasks_share_an_asynchronous_client(self, backend):
        """Calls of one loop run beside each other."""

        async def embed():
            async with backend.client()._client as client:
                return await asyncio.gather(*(client.embed_text(text) for text in texts(8)))

        assert len(asyncio.run(embed())) == 8

    def test_after_closing(self, backend):
        """A closed client says so, as often as it is asked."""
        client = backend.client()
        client.embed_text("a red circle")
        client.close()
        client.close()

        for call in (lambda: client.embed_text("a red circle"), client.health):
            with pytest.raises(Closed, match="this client is closed: make a new one"):
                call()
        with pytest.raises(ClientError, match="is closed"):
            asyncio.run(client._client.embed_text("a red circle"))


@pytest.mark.usefixtures("short_pauses")
class TestDisturbedPlatform:
    @pytest.mark.parametrize("is_long", [False, True])
    def test_no_call_shows_what_the_platform_did(self, serverless, is_long):
        """Submissions and questions that fail, and jobs delivered twice, change no vector and no order."""
        routes = ("run", "status") if is_long else ("runsync",)
        with serverless.client() as client:
            wanted = client.embed_texts(texts(60)).vectors
        for route in routes:
            for status in (429, 500, 503, 429, 502):
                serverless.platform.fail(route, status)
        with serverless.client(is_long=is_long) as client:
            found = client.embed_texts(texts(60))

        assert np.allclose(found.vectors, wanted, atol=1e-5)
        assert all(serverless.platform.faults_used()[route] >= 5 for route in routes)

    def test_a_worker_that_counts_as_lost(self, serverless):
        """A job that is delivered again while its first result is on its way has one answer."""
        platform = serverless.platform
        with serverless.client() as client:
            wanted = client.embed_text("a red circle")
            platform.delay_done(1.0)
            again = threading.Timer(0.4, lambda: platform.redeliver("worker-1"))
            again.start()
            found = client.embed_text("a red circle")
            again.join()
            platform.delay_done(0)

        assert np.allclose(found, wanted, atol=1e-5)
