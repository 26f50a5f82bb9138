"""What the models say of themselves to whoever writes a client: as strict as they are."""

from __future__ import annotations

import pytest

from embedding.contract.requests import BatchRequest, ImageRequest, Item, TextRequest, parse
from embedding.errors import InvalidInput


NULL = {"type": "null"}


@pytest.mark.parametrize(
    ("model", "sources"),
    [
        (Item, ["image_url", "image_base64", "text"]),
        (ImageRequest, ["image_url", "image_base64"]),
        (TextRequest, ["text", "texts"]),
    ],
)
def test_exactly_one_source(model, sources):
    """One source is required, and the others are absent or null."""
    assert model.model_json_schema()["oneOf"] == [
        {"required": [name], "properties": dict.fromkeys(sources, NULL) | {name: {"not": NULL}}}
        for name in sources
    ]


@pytest.mark.parametrize("model", [ImageRequest, TextRequest, BatchRequest])
def test_float16_needs_base64(model):
    """Half precision comes in base64 alone."""
    assert model.model_json_schema()["anyOf"] == [
        {"properties": {"embed_dtype": {"const": "float32"}}},
        {"properties": {"encoding_format": {"const": "base64"}}, "required": ["encoding_format"]},
    ]


class TestActionThatIsKnown:
    def test_need_not_be_named(self):
        """Where the route says what is asked, the input need not, and may."""
        assert parse({"text": "a"}, max_batch_size=1, action="text").text == "a"
        assert parse({"text": "a", "action": "text"}, max_batch_size=1, action="text").text == "a"

    def test_other_fields_are_not_its(self):
        """Fields do not change what the route is for."""
        with pytest.raises(InvalidInput, match="image_url is not a field of this action"):
            parse({"image_url": "https://a.org/b"}, max_batch_size=1, action="text")

    def test_another_is_refused(self):
        """An input that names another action is told so."""
        with pytest.raises(InvalidInput, match="action: here it is text; leave it out"):
            parse({"text": "a", "action": "batch"}, max_batch_size=1, action="text")
