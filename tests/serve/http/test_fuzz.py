"""What strangers may send over HTTP, drawn from `/openapi.json`: all that it allows, and all that it forbids.

schemathesis sends it to the running service and holds every answer against the document: no 5xx, no status,
type, header or field that is not described; what is forbidden is refused, what is allowed is answered.
"""

from __future__ import annotations

import base64
import copy
import json

import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import negative_data_rejection

from embedding.serve.access import Access
from embedding.serve.http.app import make_app
from embedding.serve.http.forms import MAX_AUTH_CHARS
from embedding.serve.http.gate import Gate
from embedding.serve.http.service import Service
from embedding.serve.http.spec import PICTURE


URI = f"data:image/png;base64,{PICTURE}"
KNOWN = {
    "model": ["demo"],
    "image_base64": [PICTURE, URI],
    "image_url": [],
    "dimensions": [512],
    "modality": ["text"],
}
PACKING = {"encoding_format": ["float", "base64"], "embed_dtype": ["float32", "float16"]}
REFUSED = ["400", "401", "405", "413", "422"]
BOUNDS = settings(
    max_examples=settings.default.max_examples // 5,
    derandomize=settings.default.max_examples <= 100,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
CONFIG = schemathesis.Config.from_dict(
    {"checks": {"negative_data_rejection": {"expected-statuses": REFUSED}}}
)


def described():
    """Return the document of a service like the one that runs."""
    gate = Gate(max_running=3, max_request_bytes=1000)
    service = Service(gate, Access())
    return make_app(service, max_batch_size=64).openapi()


def narrowed(document):
    """Return *document* with what no schema can know: which pictures decode, and what this model is called.

    Downloads are left out, for nothing here may reach another host.
    """
    document = copy.deepcopy(document)
    schemas = document["components"]["schemas"]
    for name in ("ImageRequest", "TextRequest", "BatchRequest", "Item", "EmbeddingsRequest"):
        schema = schemas[name]
        for field in KNOWN.keys() & schema["properties"].keys():
            schema["properties"][field] = {"enum": [None, *KNOWN[field]]}
        if "oneOf" in schema:
            schema["oneOf"] = [each for each in schema["oneOf"] if each["required"] != ["image_url"]]
    for name in ("ImageForm", "ImageBatchForm"):
        schemas[name]["properties"]["model"] = {"enum": KNOWN["model"]}
    for parameter in document["paths"]["/v1/embed/image"]["post"]["parameters"]:
        if parameter["name"] == "model":
            parameter["schema"] = {"enum": KNOWN["model"]}
    return document


schemathesis.openapi.media_type("image/*", st.just(base64.b64decode(PICTURE)))
schemathesis.openapi.format("binary", st.just(base64.b64decode(PICTURE)))
schema = schemathesis.openapi.from_dict(narrowed(described()), config=CONFIG)


def test_the_document_is_the_services_own(client):
    """What is tried below is what the running service says of itself."""
    assert client.get("/openapi.json").json() == described()


@schema.parametrize()
@BOUNDS
def test_any_request_is_answered_as_described(case, service):
    """Whatever comes, the service answers as its document says."""
    settle(case)
    in_form = case.media_type == "multipart/form-data"  # all fields are texts there: of a wrong type is none
    case.call_and_validate(base_url=service.url, excluded_checks=[negative_data_rejection] if in_form else [])


def settle(case):
    """Take from *case* what no schema can speak of: what query and body decide together, and tokens."""
    fields = {}
    if isinstance(case.body, dict) and case.meta.generation.mode.is_positive:
        fields = case.body
        if isinstance(fields.get("text"), str):
            fields["truncate"] = True  # else a long text is refused, by its tokens
        if len(json.dumps(fields.get("auth"))) > MAX_AUTH_CHARS:
            del fields["auth"]  # a form's is bounded as the text that it travels as
    for name, value in dict(case.query or {}).items():
        if name in fields or (name in PACKING and value in PACKING[name]):
            del case.query[name]
