"""What a job may ask: which input is which action, and what is said of a bad one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding.contract.openai import parse_embeddings, parse_route
from embedding.contract.requests import Item, Rejected, parse, request_id_of
from embedding.errors import BatchTooLarge, InvalidInput, WorkerError


ACTIONS_TOLD = "action must be one of image, text, batch, health, gpu_info, list_files, download_models"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)


def message_of(job_input, *, max_batch_size=4):
    """Return what the caller of *job_input* is told."""
    with pytest.raises(InvalidInput) as fault:
        parse(job_input, max_batch_size=max_batch_size)
    return fault.value.message


class TestInference:
    @pytest.mark.parametrize(
        ("job_input", "action", "single"),
        [
            ({"image_url": "https://a.org/b.jpg"}, "image", True),
            ({"image_base64": "QUJD"}, "image", True),
            ({"text": "a red circle"}, "text", True),
            ({"texts": ["a red circle"]}, "text", False),
            ({"items": [{"text": "a red circle"}]}, "batch", False),
            ({"action": "text", "text": ""}, "text", True),
        ],
    )
    def test_action_follows_the_fields(self, job_input, action, single):
        """Without `action`, what is given to embed says which it is."""
        request = parse(job_input, max_batch_size=4)

        assert (request.action, request.single) == (action, single)

    def test_health_is_asked_by_name(self):
        """`health` embeds nothing and has to be named."""
        assert parse({"action": "health"}, max_batch_size=4).action == "health"


class TestMessages:
    @pytest.mark.parametrize(
        ("job_input", "told"),
        [
            (None, 'the input must be a JSON object, for example {"text": "a red circle"}'),
            ([], "the input must be a JSON object"),
            ({}, "input names nothing to embed: give one of image_url, image_base64, text, texts, items"),
            ({"txt": "a red circle"}, "txt is not a field of any action; did you mean text?"),
            ({"action": "embed"}, ACTIONS_TOLD),
            ({"action": 3, "text": "x"}, ACTIONS_TOLD),
            (
                {"text": "x", "normalise": True},
                "normalise is not a field of this action; did you mean normalize?",
            ),
            ({"text": "x", "image_url": "https://a"}, "text is not a field of this action"),
            ({"text": 5}, "text: input should be a valid string"),
            ({"text": "x", "normalize": "yes"}, "normalize: input should be a valid boolean"),
            ({"text": "x", "request_id": "r" * 129}, "request_id: string should have at most 128 characters"),
            ({"text": "x", "encoding_format": "npy"}, "encoding_format: input should be 'float' or 'base64'"),
            ({"text": "x", "embed_dtype": "float16"}, "embed_dtype 'float16' needs encoding_format 'base64'"),
            ({"text": "x", "texts": ["y"]}, "give exactly one of text, texts"),
            (
                {"image_url": "https://a", "image_base64": "QUJD"},
                "give exactly one of image_url, image_base64",
            ),
            (
                {"image_url": "https://a/" + "b" * 2048},
                "image_url: string should have at most 2048 characters",
            ),
            ({"image_base64": ""}, "image_base64: string should have at least 1 character"),
            ({"items": []}, "items: list should have at least 1 item"),
            ({"texts": {}}, "texts: input should be a valid list"),
            ({"text": "\ud800"}, "text: input should be a valid string"),
        ],
    )
    def test_names_the_field_and_the_limit(self, job_input, told):
        """Every fault is told by its field's name and what is allowed."""
        assert told in message_of(job_input)

    def test_tells_several_faults_at_once(self):
        """Three faults are told, more are counted."""
        told = message_of({"text": 1, "normalize": 2, "model": 3, "request_id": 4, "truncate": 5})

        assert told.count(";") == 3
        assert told.endswith("and 2 more faults")

    @pytest.mark.parametrize(("field", "entry"), [("items", {"text": "x"}), ("texts", "x")])
    def test_lists_are_limited(self, field, entry):
        """MAX_BATCH_SIZE entries are taken, one more is refused with both numbers."""
        assert len(parse({field: [entry] * 4}, max_batch_size=4).items()) == 4
        with pytest.raises(BatchTooLarge, match=f"{field} holds 5 entries; the limit is 4"):
            parse({field: [entry] * 5}, max_batch_size=4)


class TestItems:
    def test_bad_item_stands_in_its_place(self):
        """A faulty item becomes its own error, with its request id, and spares the others."""
        items = parse(
            {"items": [{"text": "a"}, {"txt": "b", "request_id": "two"}, 3, {"image_url": "u", "text": "t"}]},
            max_batch_size=4,
        ).items()

        assert [type(item) for item in items] == [Item, Rejected, Rejected, Rejected]
        assert items[1].request_id == "two"
        assert [item.error.message for item in items[1:]] == [
            "txt is not a field of this action; did you mean text?",
            "an item must be a JSON object",
            "give exactly one of image_url, image_base64, text",
        ]

    def test_item_inherits_and_overrides_the_batch(self):
        """`normalize` and `truncate` of the batch hold for items that do not set their own."""
        items = parse(
            {
                "items": [{"text": "a"}, {"text": "b", "normalize": True}],
                "normalize": False,
                "truncate": False,
            },
            max_batch_size=4,
        ).items()

        assert [(item.normalize, item.truncate) for item in items] == [(False, False), (True, False)]

    def test_bad_text_of_a_list_stands_in_its_place(self):
        """`texts` keeps its order around an entry that is no text."""
        items = parse({"texts": ["a", None, "b"]}, max_batch_size=4).items()

        assert [getattr(item, "text", None) for item in items] == ["a", None, "b"]


class TestOpenAI:
    def test_strings_become_texts_and_images(self):
        """A data URI or a URL in `input` is an image, whatever else a text."""
        request = parse_embeddings(
            {"input": ["a cat", "data:image/png;base64,QUJD", "https://a.org/b.png", "https:// is a scheme"]},
            dim=512,
            max_batch_size=64,
        )
        kinds = [
            next(k for k in ("text", "image_base64", "image_url") if getattr(i, k)) for i in request.items()
        ]

        assert kinds == ["text", "image_base64", "image_url", "text"]

    @pytest.mark.parametrize(
        ("body", "told"),
        [
            (None, "a request for embeddings must be a JSON object"),
            ({}, "input: field required"),
            ({"input": []}, "token arrays are not accepted"),
            ({"input": [1, 2]}, "token arrays are not accepted"),
            ({"input": "a", "dimensions": 256}, "dimensions: this model's vectors have 512 numbers"),
            ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
            ({"input": "a", "modality": "audio"}, "modality: input should be 'text' or 'image'"),
            ({"input": ["https://a.org/b", "a cat"], "modality": "image"}, "input[1]: an image must be"),
        ],
    )
    def test_names_what_is_wrong(self, body, told):
        """Each bad body of OpenAI's API gets a plain sentence."""
        with pytest.raises(InvalidInput) as fault:
            parse_embeddings(body, dim=512, max_batch_size=64)

        assert told in fault.value.message

    @pytest.mark.parametrize(
        ("modality", "expected"),
        [
            (None, ["text", "image_base64", "image_url"]),
            ("text", ["text"] * 3),
            ("image", [None, "image_base64", "image_url"]),
        ],
    )
    def test_modality_says_what_entries_are(self, modality, expected):
        """Infinity's field goes before what an entry looks like; a text cannot be an image."""
        entries = ["a cat", "data:image/png;base64,QUJD", "https://a.org/b.png"]
        for entry, kind in zip(entries, expected, strict=True):
            body = {"input": [entry], "modality": modality}
            if kind is None:
                with pytest.raises(InvalidInput, match="must be a data URI"):
                    parse_embeddings(body, dim=512, max_batch_size=64)
            else:
                (item,) = parse_embeddings(body, dim=512, max_batch_size=64).items()
                assert getattr(item, kind) == entry

    def test_own_dimension_is_accepted(self):
        """`dimensions` equal to the model's is no fault."""
        assert (
            parse_embeddings({"input": "a", "dimensions": 512}, dim=512, max_batch_size=64).items()[0].text
            == "a"
        )

    @pytest.mark.parametrize("route", ["/v1/chat/completions", None, 5, ["/v1/models"]])
    def test_unknown_route_is_refused(self, route):
        """Only embeddings and models are served."""
        with pytest.raises(InvalidInput, match="/v1/embeddings, /v1/models"):
            parse_route({"openai_route": route})


class TestProperties:
    @given(
        job_input=JSON
        | st.dictionaries(st.sampled_from(["text", "texts", "items", "image_url", "auth"]), JSON)
    )
    def test_any_json_is_parsed_or_refused(self, job_input):
        """Arbitrary JSON gives a request or one of our errors, whose message can be sent as UTF-8."""
        try:
            request = parse(job_input, max_batch_size=4)
        except WorkerError as error:
            json.dumps(error.as_item(), ensure_ascii=False).encode()
        else:
            for item in request.items() if hasattr(request, "items") else []:
                assert isinstance(item, Item | Rejected)

    @given(request_id=JSON)
    def test_only_a_sound_request_id_is_echoed(self, request_id):
        """What is echoed is text of at most 128 characters that UTF-8 can carry, or nothing."""
        echoed = request_id_of({"request_id": request_id})

        assert echoed is None or (echoed == request_id and len(echoed.encode()) <= 4 * 128)
