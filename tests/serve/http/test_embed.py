"""The routes that embed: every form of body, the queue's answers, and errors with their statuses."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest


IMAGE, BATCH, TEXT = "/v1/embed/image", "/v1/embed/image-batch", "/v1/embed/text"
FIELDS = {"request_id", "embedding", "dim", "model", "model_name", "pretrained", "device", "normalized"}


def vector_of(response):
    """Return the embedding of a response that is good."""
    assert response.status_code == 200, response.text
    return np.array(response.json()["embedding"])


class TestBodies:
    def test_all_forms_of_a_picture_are_one(self, client, picture):
        """JSON, a form, bare bytes with and without their type: one vector, for one picture."""
        json_body = {"image_base64": base64.b64encode(picture).decode()}
        vectors = [
            vector_of(response)
            for response in (
                client.post(IMAGE, json=json_body),
                client.post(IMAGE, content=json.dumps(json_body)),
                client.post(IMAGE, files={"image": ("p.jpg", picture, "image/jpeg")}),
                client.post(IMAGE, files={"file": picture}),
                client.post(IMAGE, content=picture, headers={"content-type": "image/jpeg"}),
                client.post(IMAGE, content=picture, headers={"content-type": "application/octet-stream"}),
                client.post(
                    IMAGE, content=picture, headers={"content-type": "application/x-www-form-urlencoded"}
                ),
                client.post(IMAGE, content=(picture[i : i + 999] for i in range(0, len(picture), 999))),
            )
        ]

        assert all(np.abs(vector - vectors[0]).max() <= 1e-5 for vector in vectors)

    def test_options_beside_a_picture(self, client, picture):
        """They stand in the query, or among a form's fields, and mean what they mean in JSON."""
        options = {"request_id": "a", "normalize": "false", "encoding_format": "base64"}
        bare = client.post(IMAGE, params=options, content=picture, headers={"content-type": "image/jpeg"})
        form = client.post(IMAGE, data=options, files={"image": picture})
        for answer in (bare.json(), form.json()):
            assert (answer["request_id"], answer["normalized"]) == ("a", False)
            assert len(base64.b64decode(answer["embedding"])) == 4 * answer["dim"]

    def test_a_form_of_pictures_is_a_batch(self, client, picture):
        """Each file of a form is an item, in order; a bad one fails alone."""
        files = [("images", picture), ("images", b"no picture"), ("images[]", picture)]
        answer = client.post(BATCH, files=files).json()

        assert [result.get("error", {}).get("code") for result in answer["results"]] == [
            None,
            "DECODE_ERROR",
            None,
        ]
        assert answer["errors"] == 1
        assert answer["results"][0]["embedding"] == pytest.approx(answer["results"][2]["embedding"])

    def test_batch_and_texts(self, client, picture):
        """Items mix freely; texts are one, or a list; answers have the queue's fields."""
        items = [
            {"image_base64": base64.b64encode(picture).decode(), "request_id": "p"},
            {"text": "a red circle"},
        ]
        batch = client.post(BATCH, json={"items": items}).json()
        texts = client.post(TEXT, json={"texts": ["a red circle", "a blue square"]}).json()
        text = client.post(TEXT, json={"text": "a red circle"}).json()

        assert set(text) >= FIELDS | {"timings", "tokens", "truncated", "fingerprint"}
        assert batch["results"][0]["request_id"] == "p"
        assert batch["results"][1]["embedding"] == pytest.approx(text["embedding"], abs=1e-5)
        assert texts["results"][0]["embedding"] == pytest.approx(text["embedding"], abs=1e-5)
        assert set(batch["batch_timings"]) == set(text["timings"])

    def test_timing_headers(self, client):
        """Every answer says in milliseconds what waiting, the forward and the whole took."""
        response = client.post(TEXT, json={"text": "a red circle"})
        timings = response.json()["timings"]

        assert float(response.headers["x-queue-time"]) == timings["queue_ms"]
        assert float(response.headers["x-inference-time"]) == timings["inference_ms"]
        assert float(response.headers["x-total-time"]) >= timings["total_ms"]


class TestErrors:
    @pytest.mark.parametrize(
        ("path", "sent", "status", "code", "told"),
        [
            (TEXT, {"content": b"{"}, 400, "INVALID_INPUT", "the body is not a JSON object"),
            (TEXT, {"content": b""}, 400, "INVALID_INPUT", "the body is not a JSON object"),
            (TEXT, {"json": ["a"]}, 422, "INVALID_INPUT", "must be a JSON object"),
            (TEXT, {"json": {"txt": "a"}}, 422, "INVALID_INPUT", "did you mean text?"),
            (
                TEXT,
                {"json": {"image_url": "https://a.b/c"}},
                422,
                "INVALID_INPUT",
                "image_url is not a field",
            ),
            (
                TEXT,
                {"json": {"text": "a", "action": "batch"}},
                422,
                "INVALID_INPUT",
                "action: here it is text",
            ),
            (TEXT, {"json": {"text": "a", "model": "b"}}, 422, "MODEL_MISMATCH", "this worker serves demo"),
            (TEXT, {"json": {"text": "a " * 90, "truncate": False}}, 422, "TEXT_TOO_LONG", "the limit is"),
            (BATCH, {"json": {"items": [{"text": "a"}] * 65}}, 413, "BATCH_TOO_LARGE", "the limit is 64"),
            (IMAGE, {"json": {"image_url": "https://127.0.0.1/a"}}, 422, "URL_REFUSED", ""),
            (IMAGE, {"content": b"GIF"}, 422, "DECODE_ERROR", "is not a JPEG"),
            (IMAGE, {"files": {"pic": b"a"}}, 422, "INVALID_INPUT", "name it image"),
            (IMAGE, {"files": [("image", b"a"), ("image", b"b")]}, 422, "INVALID_INPUT", "image-batch"),
            (IMAGE, {"files": {"image": b"a"}, "data": {"normalize": "x"}}, 422, "INVALID_INPUT", "true or"),
            (IMAGE, {"files": {"image": b"a"}, "data": {"auth": "x"}}, 422, "INVALID_INPUT", "auth must be"),
            (
                IMAGE,
                {"content": b"--a\r\n", "headers": {"content-type": "multipart/form-data; boundary=b"}},
                400,
                "INVALID_INPUT",
                "the form cannot be read",
            ),
            (IMAGE, {"content": bytes(30_000_001)}, 413, "INVALID_INPUT", "the limit is 30000000"),
            ("/v1/nowhere", {"content": b"{}"}, 404, "INVALID_INPUT", "there is no such route"),
            ("/v1/ping", {"content": b"{}"}, 405, "INVALID_INPUT", "another method"),
        ],
    )
    def test_each_has_its_status_and_says_what_to_do(self, client, path, sent, status, code, told):  # noqa: PLR0917
        """A body that cannot be read is 400, what it asks 422, what is too much 413."""
        response = client.post(path, **sent)
        error = response.json()["error"]

        assert (response.status_code, error["code"]) == (status, code)
        assert told in error["message"]
        assert set(error) == {"code", "message", "retryable", "request_id"}

    def test_request_id_is_echoed(self, client):
        """An error carries the id of the request that it answers."""
        answer = client.post(TEXT, json={"request_id": "mine", "nothing": 1}).json()

        assert answer["error"]["request_id"] == "mine"


class TestOpenAI:
    @pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings"])
    def test_embeddings(self, client, path):
        """OpenAI's form, where OpenAI has it and where Infinity has it."""
        answer = client.post(path, json={"input": ["a red circle", "b"], "model": "demo"}).json()
        text = client.post(TEXT, json={"text": "a red circle"})

        assert [entry["index"] for entry in answer["data"]] == [0, 1]
        assert answer["data"][0]["embedding"] == pytest.approx(vector_of(text), abs=1e-5)
        assert answer["usage"]["prompt_tokens"] == 8

    def test_models(self, client):
        """The model served is listed."""
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["demo"]


class TestStatus:
    def test_ping(self, client):
        """A ready worker says 200 to a load balancer."""
        assert client.get("/ping").status_code == 200

    def test_about(self, client):
        """`/v1/ping` names status, what callers must show, version, GPU, models and identity."""
        told = client.get("/v1/ping").json()

        assert set(told) == {"status", "version", "gpu", "gpuName", "cuda", "models", "identity", "auth"}
        assert (told["status"], told["models"], told["auth"]) == ("ready", ["demo"], ["none"])

    def test_health(self, client):
        """`/health` is the queue's action, with a real forward where it is asked for."""
        assert client.get("/health").json()["status"] == "ok"
        assert client.get("/health?check=1").json()["check"]["passed"] is True
