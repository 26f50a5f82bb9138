"""What an operator may ask: names that become folders and repositories are judged by their letters."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from embedding.contract.requests import parse
from embedding.errors import InvalidInput
from embedding.model.weights import HUB_PREFIX, folder_name


FORM = "each must be NAME/TAG, hf-hub:organisation/name, or an object of model and pretrained"


def asked(job_input):
    """Return what *job_input* asks for."""
    return parse(job_input, max_batch_size=1)


def names(*models):
    """Return the models that a job asks for, as pairs."""
    request = asked({"action": "download_models", "models": list(models)})
    return [(each.model, each.pretrained) for each in request.models]


def told(job_input):
    """Return what the sender of *job_input* is told."""
    with pytest.raises(InvalidInput) as fault:
        asked(job_input)
    return fault.value.message


class TestGpuInfo:
    @pytest.mark.parametrize(
        "job_input",
        [{"action": "gpu_info"}, {"test": "nvidia-smi"}, {"test": "nvidia-smi", "action": "gpu_info"}],
    )
    def test_ways_to_ask(self, job_input):
        """It is asked for by its name, and by the input that RunPod's console has as an example."""
        assert asked(job_input).action == "gpu_info"

    def test_no_other_test(self):
        """Nothing else can be run in its place."""
        assert told({"test": "rm"}) == "test: input should be 'nvidia-smi'"


class TestListFiles:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("limit", 1), ("limit", 2), ("limit", 999), ("limit", 1000), ("path", "p"), ("path", "p" * 4096),
            ("offset", 0), ("offset", 1), ("offset", 999_999), ("offset", 1_000_000), ("path", "p" * 4095),
        ],
    )  # fmt: skip
    def test_within_limits(self, field, value):
        """Each field is taken up to its limit."""
        assert getattr(asked({"action": "list_files", field: value}), field) == value

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("limit", 0), ("limit", 1001), ("offset", -1), ("offset", 1_000_001), ("path", ""),
            ("path", "p" * 4097),
        ],
    )  # fmt: skip
    def test_beyond_limits(self, field, value):
        """One more, and its sender is told which field."""
        assert told({"action": "list_files", field: value}).startswith(f"{field}: ")

    def test_usual(self):
        """Without them it is the roots, from the first entry on."""
        request = asked({"action": "list_files"})

        assert (request.path, request.limit, request.offset) == (None, 1000, 0)


class TestModels:
    def test_forms(self):
        """A model is named as the settings name it: in one string or in two."""
        assert names(
            "ViT-B-32/openai",
            "ViT-B/32/openai",
            "hf-hub:org/name",
            {"model": "ViT-B-32", "pretrained": "openai"},
            {"model": "hf-hub:org/na.me_1"},
        ) == [
            ("ViT-B-32", "openai"),
            ("ViT-B/32", "openai"),
            ("hf-hub:org/name", ""),
            ("ViT-B-32", "openai"),
            ("hf-hub:org/na.me_1", ""),
        ]

    @pytest.mark.parametrize("name", ["0/9", "9/0", "a0/z9", "A9z/Z0a", "x0x/x9x", "x9x/x0x", "a._-b/c.d"])
    def test_letters(self, name):
        """Letters and digits stand anywhere, dots, underscores and single dashes between them."""
        assert names(name, f"hf-hub:{name}") == [tuple(name.split("/")), (f"hf-hub:{name}", "")]

    def test_as_text(self):
        """It is written as it may be asked for."""
        for name in ("ViT-B-32/openai", "hf-hub:org/name"):
            (model,) = asked({"action": "download_models", "models": [name]}).models
            assert str(model) == name

    @pytest.mark.parametrize(
        "bad",
        [
            "", "ViT-B-32", "/", "a/", "/a", "../a", "a/..", "a/b/../c", "a\0/b", "a/b\n", "-a/b", "a/-b",
            "a./b", "a..b/c", "a--b/c", "hf-hub:", "hf-hub:a", "hf-hub:a/b/c", "hf-hub:../a", "hf-hub:a/..",
            "hf-hub:/a", "hf-hub:a/b/", "hf-hub:hf-hub:a/b", "hf-hub:a--b/c", "hf-hub:a /b",
            "hf-hub:\u00e9/b", "~/a",
            {"model": "hf-hub:a/b", "pretrained": "c"}, {"model": "a"}, {"model": "a", "pretrained": "../b"},
            {"model": "/a", "pretrained": "b"},
        ],
    )  # fmt: skip
    def test_what_is_no_name(self, bad):
        """What could lead to another folder or repository, or is neither, is refused."""
        assert told({"action": "download_models", "models": [bad]}) == f"models: {FORM}"

    @pytest.mark.parametrize(
        ("count", "is_taken"), [(0, False), (1, True), (15, True), (16, True), (17, False)]
    )
    def test_how_many(self, count, is_taken):
        """A job may ask for 16."""
        job = {"action": "download_models", "models": ["a/b"] * count}
        if is_taken:
            assert len(asked(job).models) == count
        else:
            assert told(job).startswith("models: list should have at ")

    @pytest.mark.parametrize(("length", "is_taken"), [(95, True), (96, True), (97, False)])
    def test_how_long(self, length, is_taken):
        """A name, a tag and a whole repository have up to 96 characters."""
        for name in (f"{'a' * length}/b", f"a/{'b' * length}", f"hf-hub:a/{'b' * (length - 2)}"):
            if is_taken:
                assert names(name)
            else:
                assert told({"action": "download_models", "models": [name]}) == f"models: {FORM}"

    @given(st.one_of(st.text(), st.from_regex(r"(hf-hub:)?[-.a/~\\]{1,8}", fullmatch=True)))
    @example("hf-hub:.a/b")
    @example("a.-.b/c")
    def test_any_name_stays_below_its_root(self, name):
        """Whatever is taken becomes one folder's name, and none that begins with a dot or a dash."""
        try:
            ((model, pretrained),) = names(name)
        except InvalidInput:
            return
        folder = folder_name(model if model.startswith(HUB_PREFIX) else model.replace("/", "-"), pretrained)

        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", folder)


@pytest.mark.parametrize(
    ("job_input", "hint"),
    [
        ({"action": "list_files", "pth": "/"}, "; did you mean path?"),
        ({"action": "download_models", "pth": 1}, ""),
        ({"action": "download_models", "mdels": 1}, "; did you mean models?"),
        ({"action": "list_files", "mdels": 1}, "; did you mean model?"),
        ({"action": "list_files", "texts": []}, ""),
        ({"action": "gpu_info", "tst": 1}, "; did you mean test?"),
        ({"action": "text", "text": "x", "pth": 1}, ""),
        ({"action": "text", "text": "x", "mdels": 1}, "; did you mean model?"),
    ],
)
def test_hints_are_true(job_input, hint):
    """A field is suggested only where the action has it."""
    assert told(job_input) == f"{list(job_input)[-1]} is not a field of this action{hint}"
