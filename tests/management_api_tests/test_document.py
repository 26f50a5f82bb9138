"""The loopback API says what the platform's OpenAPI document says, as far as its schemas can tell.

The document lies beside the repository, or where EMBED_OPENAPI says.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.management_api import distil, schemas
from tests.management_api.routes import table
from tests.management_api.store import Store


BESIDE = Path(__file__).parents[3] / "shared" / "reference" / "runpod-openapi-v2.json"
DOCUMENT = Path(os.environ.get("EMBED_OPENAPI") or BESIDE)
EXAMPLES = {
    "POST /v2/serverless": "CreateEndpointRequest",
    "PATCH /v2/serverless/{id}": "UpdateEndpointRequest",
    "POST /v2/network-volumes": "CreateNetworkVolumeRequest",
    "PATCH /v2/network-volumes/{id}": "UpdateNetworkVolumeRequest",
    "POST /v2/registries": "CreateRegistryRequest",
}


@pytest.fixture(scope="module")
def document():
    """The whole document, where it is at hand."""
    if not DOCUMENT.is_file():
        pytest.skip("the platform's OpenAPI document is not beside the repository")
    return json.loads(DOCUMENT.read_text(encoding="utf-8"))


class TestDistilled:
    def test_is_what_the_document_says(self, document):
        """schemas.json is a fresh distillation of the document."""
        assert schemas.DISTILLED.read_text(encoding="utf-8") == distil.to_text(distil.distil(document))

    def test_keeps_what_decides(self, document):
        """Only prose is left out: every other key of a schema is kept."""
        full = document["components"]["schemas"]["CreateEndpointRequest"]
        kept = json.loads(schemas.DISTILLED.read_text(encoding="utf-8"))["components"]["schemas"]

        assert kept["CreateEndpointRequest"].keys() == full.keys()
        assert kept["CreateEndpointRequest"]["allOf"][2]["properties"].keys() == (
            full["allOf"][2]["properties"].keys()
        )

    @pytest.mark.parametrize("route", EXAMPLES)
    def test_examples_pass(self, document, route):
        """Each example of a request in the document passes its distilled schema."""
        method, path = route.split()
        content = document["paths"][path][method.lower()]["requestBody"]["content"]["application/json"]
        assert content["schema"]["$ref"].endswith(f"/{EXAMPLES[route]}")
        assert content["examples"]

        for example in content["examples"].values():
            assert schemas.request_faults(route, example["value"]) == []

    def test_example_answers_pass(self, document):
        """Each example of an answer in the document would pass as an answer of the loopback API."""
        count = 0
        for route, known in schemas.routes().items():
            method, path = route.split()
            for status in known["answers"]:
                content = document["paths"][path][method.lower()]["responses"][status].get("content", {})
                for example in content.get("application/json", {}).get("examples", {}).values():
                    assert schemas.answer_faults(route, int(status), example["value"]) == []
                    count += 1

        assert count >= 15


def test_serves_every_distilled_route():
    """The routes served are those distilled, so each is in the document."""
    assert table(Store(None, None)).keys() == set(distil.ROUTES) == schemas.routes().keys()


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (200, {"registries": []}, "never answers 200"),
        (204, None, "never answers 204"),
        (201, {"id": "r"}, "name"),
        (201, {"id": "r", "name": "n", "password": "p"}, "password"),
        (422, {"title": "t", "status": 422}, "detail"),
    ],
)
def test_own_answers_are_checked(status, body, fault):
    """An answer with another status, without a field, or with one too many is noticed."""
    faults = schemas.answer_faults("POST /v2/registries", status, body)

    assert len(faults) == 1
    assert fault in faults[0]
