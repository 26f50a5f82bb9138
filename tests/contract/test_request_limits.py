"""Every limit on what a job may hold: one below and at it a job is taken, one above it is told so."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from embedding.contract.openai import parse_embeddings
from embedding.contract.requests import (
    ACTIONS,
    BatchRequest,
    HealthRequest,
    ImageRequest,
    Item,
    Rejected,
    TextRequest,
    parse,
    printable,
    request_id_of,
)
from embedding.errors import BatchTooLarge, InvalidInput


URL = "https://a.org/"
MAX_BATCH = 4
ACTIONS_TOLD = f"action must be one of {', '.join(ACTIONS)}"


def characters(count: int) -> str:
    """Letters that take two bytes each: characters count, not bytes."""
    return "\u00e9" * count


# For each limit how to make a job that holds *n*, the largest n, and what the sender of one more is told.
AT_MOST = {
    "request_id": (
        lambda n: {"text": "x", "request_id": characters(n)},
        128,
        "request_id: string should have at most 128 characters",
    ),
    "image_url": (
        lambda n: {"image_url": URL + "a" * (n - len(URL))},
        2048,
        "image_url: string should have at most 2048 characters",
    ),
    "text": (
        lambda n: {"text": characters(n)},
        100_000,
        "text: string should have at most 100000 characters",
    ),
    "fields": (
        lambda n: {"text": "x"} | {f"f{i}": 1 for i in range(n - 1)},
        64,
        "input has 65 fields; the limit is 64",
    ),
    "texts": (lambda n: {"texts": ["x"] * n}, MAX_BATCH, "texts holds 5 entries; the limit is 4"),
    "items": (lambda n: {"items": [{"text": "x"}] * n}, MAX_BATCH, "items holds 5 entries; the limit is 4"),
}
AT_LEAST = {
    "image_url": (lambda n: {"image_url": "a" * n}, "image_url: string should have at least 1 character"),
    "image_base64": (
        lambda n: {"image_base64": "a" * n},
        "image_base64: string should have at least 1 character",
    ),
    "texts": (
        lambda n: {"texts": ["x"] * n},
        "texts: list should have at least 1 item after validation, not 0",
    ),
    "items": (
        lambda n: {"items": [{"text": "x"}] * n},
        "items: list should have at least 1 item after validation, not 0",
    ),
}
IN_ITEMS = ("request_id", "image_url", "text")


def told(job_input: dict) -> str | None:
    """What the sender of a job is told is wrong with it, None for nothing."""
    try:
        parse(job_input, max_batch_size=MAX_BATCH)
    except InvalidInput as fault:
        return fault.message
    return None


def told_of_item(fields: dict) -> str | None:
    """What stands in the place of an item, None for the item itself."""
    [item] = parse({"items": [fields]}, max_batch_size=MAX_BATCH).items()
    return item.error.message if isinstance(item, Rejected) else None


@pytest.mark.parametrize("name", [name for name in AT_MOST if name != "fields"])
def test_at_most(name):
    """As much as the limit is taken; one more is refused with the limit."""
    make, most, message = AT_MOST[name]

    assert [told(make(n)) for n in (most - 1, most, most + 1)] == [None, None, message]


@pytest.mark.parametrize("name", IN_ITEMS)
def test_at_most_in_an_item(name):
    """An item of a batch has the limits of a job, and spares its neighbours."""
    make, most, message = AT_MOST[name]

    assert [told_of_item(make(n)) for n in (most - 1, most, most + 1)] == [None, None, message]


def test_text_in_a_list():
    """A text among others has the limit of one alone."""
    items = parse(
        {"texts": [characters(n) for n in (99_999, 100_000, 100_001)]}, max_batch_size=MAX_BATCH
    ).items()

    assert [type(item) for item in items] == [Item, Item, Rejected]


@pytest.mark.parametrize("name", AT_LEAST)
def test_at_least_one(name):
    """Nothing at all is refused; one and two are taken."""
    make, message = AT_LEAST[name]

    assert [told(make(n)) for n in (0, 1, 2)] == [message, None, None]


@pytest.mark.parametrize("of", ["input", "a request for embeddings", "an item"])
def test_fields(of):
    """64 fields are read, and the unknown ones are told by name; 65 are only counted."""
    answers = [told_of_fields(of, n) for n in (63, 64, 65)]

    assert all("f0" in answer for answer in answers[:2])
    assert answers[2] == f"{of} has 65 fields; the limit is 64"


def told_of_fields(of: str, count: int) -> str | None:
    """What is said of so many fields."""
    fields = AT_MOST["fields"][0](count)
    if of == "an item":
        return told_of_item(fields)
    if of == "input":
        return told(fields)
    with pytest.raises(InvalidInput) as fault:
        parse_embeddings(
            {"input" if name == "text" else name: value for name, value in fields.items()},
            dim=512,
            max_batch_size=64,
        )
    return fault.value.message


@pytest.mark.parametrize("size", [1, 2, 4096])
@pytest.mark.parametrize("field", ["texts", "items"])
def test_batch_size(field, size):
    """MAX_BATCH_SIZE is the caller's to choose, and holds to the entry."""
    entry = "x" if field == "texts" else {"text": "x"}
    for count in (max(size - 1, 1), size):
        assert len(parse({field: [entry] * count}, max_batch_size=size).items()) == count
    with pytest.raises(BatchTooLarge, match=f"{field} holds {size + 1} entries; the limit is {size}$"):
        parse({field: [entry] * (size + 1)}, max_batch_size=size)


@pytest.mark.parametrize(("faults", "told_of", "rest"), [(2, 2, ""), (3, 3, ""), (4, 3, "and 1 more faults")])
def test_faults_told(faults, told_of, rest):
    """Three faults are told in full, more are counted."""
    wrong = dict.fromkeys(("text", "normalize", "request_id", "truncate")[:faults], 5)
    lines = told({"text": "x", **wrong}).split("; ")

    assert len(lines) == told_of + bool(rest)
    assert lines[told_of:] == ([rest] if rest else [])


@pytest.mark.parametrize(("length", "shown"), [(39, 39), (40, 40), (41, 40)])
def test_name_of_a_strangers_field(length, shown):
    """A field that a stranger named is told by its first 40 characters."""
    assert printable("n" * length) == "n" * shown
    assert f"{'n' * shown} is not a field of this action" in told({"text": "x", "n" * length: 1})


@pytest.mark.parametrize(("length", "echoed"), [(0, True), (127, True), (128, True), (129, False)])
def test_echoed_request_id(length, echoed):
    """An id that a request may have is echoed, whatever else is wrong; a longer one is not."""
    assert (request_id_of({"request_id": characters(length), "text": 5}) == characters(length)) is echoed


def test_a_name_is_told_in_ascii():
    """A name in other letters is told by their numbers."""
    assert printable("caf\u00e9\ud800") == "caf\\xe9\\ud800"
    assert told({"text": "x", "\u00e9": 1}) == "\\xe9 is not a field of this action"


def test_a_name_of_another_action_is_no_misspelling():
    """Whoever names a field that another action has is not told to name it again."""
    assert told({"action": "text", "text": "x", "items": []}) == "items is not a field of this action"


@pytest.mark.parametrize("model", [Item, ImageRequest, TextRequest, BatchRequest, HealthRequest])
def test_what_is_not_said(model):
    """Vectors are normalised floats, texts may be cut, unless a job says otherwise; nothing else is set."""
    fields = {field.alias or name: field.default for name, field in model.model_fields.items()}
    usual = {"normalize": True, "truncate": True, "encoding_format": "float", "embed_dtype": "float32"}
    usual["check"] = False  # of `health`

    assert {name: value for name, value in fields.items() if value is not None and name in usual} == {
        name: value for name, value in usual.items() if name in fields
    }
    assert all(value is None for name, value in fields.items() if name not in {*usual, "action", "items"})


@pytest.mark.parametrize("model", [Item, TextRequest])
def test_what_was_parsed_does_not_change(model):
    """A request is what it was when it was judged, and a fault in one does not quote it."""
    fields = {"text": "x"} | ({"action": "text"} if model is TextRequest else {})
    parsed = model.model_validate(fields)
    with pytest.raises(ValidationError, match="frozen"):
        parsed.text = "y"
    with pytest.raises(ValidationError) as fault:
        model.model_validate(fields | {"normalize": "hunter2"})

    assert "hunter2" not in str(fault.value)


def test_each_action_hands_on_its_fields():
    """An item has what its job said of it."""
    shared = {"request_id": "r", "normalize": False, "auth": {"ts": 1}}
    sources = ({"image_url": "https://a"}, {"image_base64": "QUJD"}, {"text": "x", "truncate": False})
    for source in sources:
        [item] = parse({**source, **shared}, max_batch_size=1).items()

        assert item == Item(**source, **shared)


def test_lists_hand_on_what_is_shared():
    """Texts of a list share the job's options and no id."""
    texts = parse(
        {"texts": ["x"], "normalize": False, "truncate": False, "request_id": "r"}, max_batch_size=1
    )

    assert texts.items() == [Item(text="x", normalize=False, truncate=False)]
    assert not texts.single


@pytest.mark.parametrize("source", ["image_url", "image_base64"])
def test_the_action_of_an_image_that_has_another_source_too(source):
    """What is an image by one field is no text by another."""
    assert told({source: "https://a", "text": "x", "items": []}).startswith(
        "text is not a field of this action"
    )


def test_choices_can_be_named():
    """Each choice is taken by its name, and the compact type with base64."""
    assert told({"text": "x", "encoding_format": "float", "embed_dtype": "float32"}) is None
    assert told({"text": "x", "encoding_format": "base64", "embed_dtype": "float16"}) is None
    assert told({"action": "x"}) == ACTIONS_TOLD
    assert told({}) == (
        "input names nothing to embed: give one of image_url, image_base64, text, texts, items"
    )


def test_entries_that_are_no_texts():
    """Whatever is no text is told so in its place."""
    items = parse({"texts": [5, None]}, max_batch_size=2).items()

    assert [item.error.message for item in items] == ["text: input should be a valid string"] * 2


@pytest.mark.parametrize("name", ["image_url", "image_base64"])
def test_at_least_one_in_an_item(name):
    """An item of a batch holds as much as a job at least."""
    make, message = AT_LEAST[name]

    assert [told_of_item(make(n)) for n in (0, 1, 2)] == [message, None, None]
