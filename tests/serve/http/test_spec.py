"""`/openapi.json` and `/docs` are true: every example is sent, every answer held against its schema."""

from __future__ import annotations

import base64
import re

import httpx
import numpy as np
import pytest
import schemathesis

from embedding.contract.tokens import Tokens
from embedding.serve.access import Access
from embedding.serve.http.app import make_app
from embedding.serve.http.gate import Gate
from embedding.serve.http.service import Service
from embedding.serve.http.spec import EXAMPLES, PICTURE
from tests.contract.signing import verifier
from tests.serve.http.local import local_service, post


ROUTES = {
    "image": "/v1/embed/image",
    "batch": "/v1/embed/image-batch",
    "text": "/v1/embed/text",
    "embeddings": "/v1/embeddings",
}
SHOWN = [(ROUTES[kind], title) for kind, shown in EXAMPLES.items() for title in shown]
JSON = "application/json"
TOKEN = "a-token-of-at-least-32-bytes-for-tests"
GOOD = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def document(service):
    """Return what the service says of itself."""
    return service.client.get("/openapi.json").json()


@pytest.fixture(scope="module")
def schema(document):
    """Return what judges answers."""
    return schemathesis.openapi.from_dict(document)


def document_of(**access):
    """Return the document of a service that is not running."""
    service = Service(Gate(max_running=3, max_request_bytes=1000), Access(**access))
    return make_app(service, max_batch_size=7).openapi()


class TestExamples:
    @pytest.mark.parametrize(("path", "title"), SHOWN)
    def test_each_is_answered_as_described(self, client, document, schema, path, title):
        """Sent as it stands, each example is answered with 200, by the schema of that answer."""
        shown = document["paths"][path]["post"]["requestBody"]["content"][JSON]["examples"]
        response = client.post(path, json=shown[title]["value"])

        assert response.status_code == 200, response.text
        schema[path]["POST"].validate_response(response)

    @pytest.mark.parametrize("path", ROUTES.values())
    def test_none_is_missing(self, document, path):
        """All are shown, on the route that they are for."""
        shown = document["paths"][path]["post"]["requestBody"]["content"][JSON]["examples"]

        assert {(path, title) for title in shown} == {each for each in SHOWN if each[0] == path}

    def test_the_picture_is_what_it_is_said_to_be(self, client):
        """The picture of the examples shows a red circle."""
        texts = ["a red circle", "a blue square", "a green star"]
        items = [{"image_base64": PICTURE}, *({"text": text} for text in texts)]
        image, *rest = [
            np.array(result["embedding"])
            for result in client.post(ROUTES["batch"], json={"items": items}).json()["results"]
        ]

        assert int(np.argmax([image @ text for text in rest])) == 0


class TestAnswers:
    @pytest.mark.parametrize(
        "path",
        ["/v1/models", "/ping", "/v1/ping", "/health", "/health?check=true", "/health?check=x", "/metrics"],
    )
    def test_of_state(self, client, schema, path):
        """What asks for no body is answered as described."""
        schema[path.partition("?")[0]]["GET"].validate_response(client.get(path))

    @pytest.mark.parametrize("path", ["/v1/ping", "/health"])
    def test_another_worker_says_so(self, service, path):
        """One that was not expected tells it in both places and warns once; it serves all the same."""
        identity = service.client.get(path).json()["identity"]

        assert identity["identityMatches"] is False
        assert "aaaaaaaaaaaa, expected is bbbbbbbbbbbb" in identity["identityMismatchReason"]
        assert service.log().count("not the worker that was expected") == 1

    @pytest.mark.parametrize("kind", ["raw", "form", "batch form"])
    def test_to_pictures_as_files(self, client, schema, kind):
        """Raw bytes and forms are answered as JSON is."""
        picture = base64.b64decode(PICTURE)
        path = ROUTES["batch" if kind == "batch form" else "image"]
        sent = {
            "raw": {"content": picture, "headers": {"content-type": "image/png"}},
            "form": {"files": {"image": picture}},
            "batch form": {"files": [("images", picture), ("images", b"")]},
        }[kind]
        response = client.post(path, **sent)
        response.request.read()

        assert response.status_code == 200
        schema[path]["POST"].validate_response(response)

    @pytest.mark.parametrize(
        ("query", "told"),
        [
            ({"request_id": "q"}, None),
            ({"normalize": "false"}, "normalize is given twice, in the query and in the body"),
            ({"normalise": "1"}, "did you mean normalize?"),
        ],
    )
    @pytest.mark.parametrize("as_form", [False, True])
    def test_a_query_beside_any_body(self, client, query, told, as_form):
        """Where a query can count, it counts beside JSON and forms too, and is judged as strictly."""
        options = {"normalize": "true"} if as_form else {"normalize": True}
        sent = (
            {"data": options, "files": {"image": base64.b64decode(PICTURE)}}
            if as_form
            else {"json": options | {"image_base64": PICTURE}}
        )
        answer = client.post(ROUTES["image"], params=query, **sent).json()

        assert answer.get("request_id") == "q" if told is None else told in answer["error"]["message"]


class TestDocument:
    def test_every_route_is_described(self, document):
        """No route is left to what the framework guesses."""
        assert set(document["paths"]) == {
            *ROUTES.values(),
            *("/v1/models", "/v1/ping", "/ping", "/health", "/metrics"),
        }
        for path in document["paths"].values():
            for operation in path.values():
                assert operation["summary"] and operation["tags"]
                assert "HTTPValidationError" not in str(operation)

    def test_limits_are_those_in_force(self):
        """The largest batch is what this service takes."""
        schemas = document_of()["components"]["schemas"]

        assert schemas["BatchRequest"]["properties"]["items"]["maxItems"] == 7
        assert schemas["TextRequest"]["properties"]["texts"]["anyOf"][0]["maxItems"] == 7
        assert schemas["ImageBatchForm"]["properties"]["images"]["maxItems"] == 7

    @pytest.mark.parametrize(
        ("access", "security", "refuses"),
        [
            ({}, None, False),
            ({"verifier": verifier()}, None, True),
            ({"tokens": Tokens.parse(TOKEN), "verifier": verifier()}, [{"bearer": []}, {}], True),
            ({"tokens": Tokens.parse(TOKEN)}, [{"bearer": []}], True),
        ],
    )
    def test_who_may_ask(self, access, security, refuses):
        """A token is asked for where nothing else will do, and 401 is told where it can come."""
        told = document_of(**access)
        post = told["paths"][ROUTES["text"]]["post"]

        assert post.get("security") == security
        assert ("401" in post["responses"]) is refuses
        assert ("bearer" in told["components"]["securitySchemes"]) is ("tokens" in access)


@pytest.mark.parametrize(
    ("access", "headers", "body", "status"),
    [
        ({}, {}, {"text": "a"}, 401),
        ({}, {"authorization": "Bearer wrong"}, {"text": "a"}, 401),
        ({"running": 0}, GOOD, {"text": "a"}, 429),
        ({}, GOOD, {"text": "a" * 1_000_001}, 413),
        ({}, GOOD, {"text": "poison"}, 500),
        ({"is_loading": True}, GOOD, {"text": "a"}, 503),
    ],
)
def test_refusals_are_described(access, headers, body, status):
    """What a service refuses for its own reasons has the described form and headers too."""
    running = {name: value for name, value in access.items() if name == "running"}
    service = local_service(tokens=Tokens.parse(TOKEN), **running)
    service.actions = None if "is_loading" in access else service.actions
    described = schemathesis.openapi.from_dict(make_app(service).openapi())
    response = post(service, ROUTES["text"], body, **headers)

    assert response.status_code == status
    described[ROUTES["text"]]["POST"].validate_response(response)


def test_docs_ask_no_other_server(client):
    """The page and all that it loads come from this service; it sends the document to nobody."""
    page = client.get("/docs")
    loaded = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)["']""", page.text)

    assert page.status_code == 200 and len(loaded) >= 4
    assert all(link.startswith("/") for link in loaded)
    assert all(client.get(link).status_code == 200 for link in loaded)
    assert '"validatorUrl": null' in page.text


@pytest.mark.parametrize("path", ["/ping", "/health"])
def test_state_may_be_asked_by_head(client, path):
    """HEAD is GET without its body, for those that only look whether the worker is there."""
    response = client.head(path)

    assert (response.status_code, response.content) == (httpx.codes.OK, b"")
