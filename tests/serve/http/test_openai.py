"""OpenAI's own client, unchanged, against this service; and what Infinity's clients send."""

from __future__ import annotations

import asyncio
import base64
import json

import httpx
import numpy as np
import openai
import pytest

from embedding.contract.tokens import Tokens
from embedding.serve.http.app import make_app
from tests.serve.http.local import local_service


TOKEN = "a-token-of-at-least-32-bytes-for-tests"
TEXTS = ["a red circle", "a blue square", "a green star"]
CASES = [
    ({"input": []}, openai.UnprocessableEntityError, "token arrays are not accepted"),
    ({"input": [[1, 2], [3]]}, openai.UnprocessableEntityError, "token arrays are not accepted"),
    ({"input": [1, 2]}, openai.UnprocessableEntityError, "token arrays are not accepted"),
    ({"input": ["a", "data:image/png;base64,QUJD"]}, openai.UnprocessableEntityError, "input[1]: "),
    ({"input": "a", "dimensions": 256}, openai.UnprocessableEntityError, "have 512 numbers"),
    ({"input": "a", "model": "gpt"}, openai.UnprocessableEntityError, "this worker serves demo"),
    ({"input": ["a"] * 65}, openai.APIStatusError, "the limit is 64"),
    ({"input": "a", "extra_body": {"modality": "audio"}}, openai.UnprocessableEntityError, "modality: "),
    (
        {"input": ["a red circle"], "extra_body": {"modality": "image"}},
        openai.UnprocessableEntityError,
        "[0]: ",
    ),
]


@pytest.fixture(scope="module")
def official(service):
    """Return OpenAI's client; the service asks for no key, the client wants one."""
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def uri(picture):
    """Return the bundled picture as a data URI."""
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"


def create(client, **body):
    """Return what the client makes of the answer."""
    return client.embeddings.create(**{"model": "demo"} | body)


def vectors(answer):
    """Return the vectors (N, D) of an answer."""
    return np.array([entry.embedding for entry in answer.data])


class TestAnswers:
    def test_a_string_and_a_list(self, official):
        """A string is one vector, a list as many, in order, of length one."""
        one, several = create(official, input=TEXTS[0]), create(official, input=TEXTS)

        assert [entry.index for entry in several.data] == [0, 1, 2]
        assert vectors(several).shape == (3, 512)
        np.testing.assert_allclose(np.linalg.norm(vectors(several), axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(vectors(one)[0], vectors(several)[0], atol=1e-5)
        assert (several.model, several.object) == ("demo", "list")
        assert several.usage.prompt_tokens == several.usage.total_tokens == 15

    @pytest.mark.parametrize("encoding", ["float", "base64"])
    def test_encodings(self, official, encoding):
        """The client asks for base64 by itself and unpacks it; asked for, either comes as it is."""
        given = create(official, input=TEXTS, encoding_format=encoding)
        raw = official.embeddings.with_raw_response.create(model="demo", input=TEXTS)
        packed = [entry.embedding for entry in given.data]
        if encoding == "base64":
            packed = [np.frombuffer(base64.b64decode(each), "<f4") for each in packed]

        assert json.loads(raw.http_request.content)["encoding_format"] == "base64"
        np.testing.assert_allclose(vectors(raw.parse()), packed, atol=1e-6)

    def test_options_that_change_nothing(self, official):
        """`dimensions` equal to the model's and `user` are accepted."""
        answer = create(official, input=TEXTS[0], dimensions=512, user="someone")

        np.testing.assert_allclose(vectors(answer), vectors(create(official, input=TEXTS[0])), atol=1e-5)

    def test_images(self, official, uri):
        """A data URI is an image, near the text that tells what it shows."""
        answer = vectors(create(official, input=[uri, *TEXTS]))

        assert int(np.argmax(answer[1:] @ answer[0])) == 0

    def test_models(self, official):
        """The model served is listed."""
        assert [model.id for model in official.models.list()] == ["demo"]

    def test_times(self, official):
        """OpenAI's answers say where the time went too."""
        headers = official.embeddings.with_raw_response.create(model="demo", input="a").headers

        assert 0 < float(headers["x-inference-time"]) <= float(headers["x-total-time"])
        assert float(headers["x-queue-time"]) >= 0

    def test_async(self, service, official):
        """The asynchronous client gets the same, many at once."""

        async def many():
            async with openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key="none") as client:
                return await asyncio.gather(*(create(client, input=text) for text in TEXTS * 4))

        answers = asyncio.run(many())

        expected = np.tile(vectors(create(official, input=TEXTS)), (4, 1))
        np.testing.assert_allclose(np.concatenate([*map(vectors, answers)]), expected, atol=1e-5)


class TestErrors:
    @pytest.mark.parametrize(("body", "kind", "told"), CASES)
    def test_what_cannot_be_done(self, official, body, kind, told):
        """The client raises the class of the status, with our sentence in it."""
        with pytest.raises(kind) as fault:
            create(official, **body)

        assert told in fault.value.message
        assert fault.value.body["message"] in fault.value.message
        assert fault.value.code in {"INVALID_INPUT", "BATCH_TOO_LARGE", "DECODE_ERROR", "MODEL_MISMATCH"}

    def test_a_body_that_cannot_be_read(self, official):
        """A body that is no JSON is a bad request."""
        with pytest.raises(openai.BadRequestError, match="not a JSON object"):
            official.post("/embeddings", content=b"{", cast_to=object)

    @pytest.mark.parametrize(
        ("key", "places", "kind", "told"),
        [
            (TOKEN, 1, None, ""),
            ("x" * 38, 1, openai.AuthenticationError, "auth is missing"),
            (TOKEN, 0, openai.RateLimitError, "try again later"),
        ],
    )
    def test_keys_and_room(self, key, places, kind, told):
        """The key is a token of the worker's; a wrong one and a full worker are told as what they are."""

        async def ask():
            service = local_service(tokens=Tokens.parse(TOKEN), running=places)
            transport = httpx.ASGITransport(make_app(service))
            async with openai.AsyncOpenAI(
                base_url="http://worker.example/v1",
                api_key=key,
                max_retries=0,
                http_client=httpx.AsyncClient(transport=transport),
            ) as client:
                return await create(client, model="served", input="a")

        if kind is None:
            assert len(asyncio.run(ask()).data[0].embedding) == 8
        else:
            with pytest.raises(kind, match=told):
                asyncio.run(ask())


class TestModality:
    @pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings"])
    def test_infinity(self, client, uri, path):
        """`modality` says what every entry is, whatever it looks like."""
        image, by_form = (
            client.post(path, json={"model": "demo", "input": [uri], **given}).json()["data"][0]["embedding"]
            for given in ({"modality": "image"}, {})
        )
        text = client.post(path, json={"input": ["https://a.example/b.png", "a"], "modality": "text"}).json()

        assert image == pytest.approx(by_form, abs=1e-5)
        assert len(text["data"]) == 2
        assert text["usage"]["total_tokens"] > 3
