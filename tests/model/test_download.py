"""A model comes from a hub over HTTP, and every way in which that fails is told in one line."""

from __future__ import annotations

import json

import huggingface_hub.constants
import pytest

from embedding.errors import StartupError
from embedding.model.folder import CONFIG_NAME, WEIGHTS_NAME
from embedding.model.weights import ModelSource, find_weights
from tests.model.folders import TINY
from tests.model.hub import running_hub, use_hub


CONFIG = json.dumps({"model_cfg": TINY}).encode()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A running hub that huggingface_hub is told to use, with an empty cache."""
    with running_hub() as server:
        use_hub(server, monkeypatch)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        yield server


def find(name="hf-hub:org/name"):
    """Find *name* where only a download can help."""
    return find_weights(ModelSource(model_name=name, roots=(), hub_caches=()))


def test_only_what_is_needed(hub):
    """Config and weights are fetched, and none of the other formats that lie beside them."""
    hub.files = {
        CONFIG_NAME: CONFIG,
        WEIGHTS_NAME: b"weights",
        "model.safetensors": b"timm's",
        "README.md": b"",
    }

    found = find()

    assert sorted(hub.fetched) == sorted([CONFIG_NAME, WEIGHTS_NAME])
    assert (found.path / WEIGHTS_NAME).read_bytes() == b"weights"
    assert (found.model_name, found.origin) == ("hf-hub:org/name", "download")


def test_tokenizer_files(hub):
    """So are the files of a tokenizer."""
    hub.files = {
        CONFIG_NAME: CONFIG,
        WEIGHTS_NAME: b"w",
        "tokenizer.json": b"t",
        "tokenizer_config.json": b"c",
    }

    find()

    assert {"tokenizer.json", "tokenizer_config.json"} <= set(hub.fetched)


def test_pickled_weights(hub):
    """Where a repository has no safetensors, its pickled weights are fetched."""
    hub.files = {CONFIG_NAME: CONFIG, "open_clip_pytorch_model.bin": b"weights"}

    assert (find().path / "open_clip_pytorch_model.bin").read_bytes() == b"weights"


def test_second_start(hub):
    """What was downloaded is served from the cache, without a request."""
    hub.files = {CONFIG_NAME: CONFIG, WEIGHTS_NAME: b"weights"}
    first = find()
    hub.refusal = 500, {}

    second = find()

    assert (second.path, second.origin) == (first.path, "cache")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({CONFIG_NAME: CONFIG}, r"has no weights file"),
        ({WEIGHTS_NAME: b""}, r"has no open_clip_config.json; it must be a folder in open_clip's hub format"),
        ({"config.json": b"{}", "model.safetensors": b""}, r"transformers' format.*CLIP_MODEL_NAME=ViT-B-32"),
        ({CONFIG_NAME: b"{", WEIGHTS_NAME: b""}, r"is not JSON"),
    ],
    ids=["no weights", "no config", "transformers", "damaged config"],
)
def test_unfit_repository(hub, files, message):
    """A repository that does not hold open_clip's format is said to be so."""
    hub.files = files

    with pytest.raises(StartupError, match=message):
        find()


@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        (
            404,
            {"X-Error-Code": "RepoNotFound"},
            r"^org/name does not exist on huggingface.co, or HF_TOKEN may",
        ),
        (
            403,
            {"X-Error-Code": "GatedRepo"},
            r"^org/name is gated; accept its terms on huggingface.co and set HF_T",
        ),
        (
            400,
            {},
            r"^cannot get org/name from huggingface.co \(Bad request:\); try again, cache the model on",
        ),
    ],
)
def test_refusals(hub, status, headers, message):
    """Each refusal of the hub is told with what to do."""
    hub.refusal = status, headers

    with pytest.raises(StartupError, match=message):
        find()


def test_no_network(hub):
    """Without a network the line says so, and what works without one."""
    hub.shutdown()
    hub.server_close()

    with pytest.raises(
        StartupError, match=r"^cannot get org/name from huggingface.co \(.*Connection refused\); try "
    ):
        find()


def test_no_such_name(hub):
    """A name that no repository can have is refused as such."""
    with pytest.raises(StartupError, match=r"^or g/na me is not a repository's name on huggingface.co$"):
        find("hf-hub:or g/na me")


def test_full_disk(hub, tmp_path):
    """A cache that cannot be written stops the start with the reason."""
    hub.files = {CONFIG_NAME: CONFIG, WEIGHTS_NAME: b"weights"}
    (tmp_path / "hub").write_text("a file where a folder must be")

    with pytest.raises(StartupError, match=r"^downloading org/name failed \(.+\); check disk space"):
        find()
