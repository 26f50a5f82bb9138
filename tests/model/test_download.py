"""A model comes from a hub over HTTP, and every way in which that fails is told in one line."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub.constants
import pytest

from embedding.errors import StartupError
from embedding.model.folder import CONFIG_NAME, WEIGHTS_NAME
from embedding.model.weights import ModelSource, find_weights
from tests.model.folders import TINY


COMMIT = "c0ffee" + "0" * 34
CONFIG = json.dumps({"model_cfg": TINY}).encode()


class Hub(ThreadingHTTPServer):
    """A Hugging Face Hub of one repository, `org/name`, that holds *files* or refuses everything."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {}
        self.refusal: tuple[int, dict[str, str]] | None = None
        self.fetched: list[str] = []


class Answer(BaseHTTPRequestHandler):
    """Answers the four requests of a download: the revision, its tree, a file's head and its content."""

    server: Hub

    def do_HEAD(self) -> None:
        """Answer as for GET, without the content."""
        self.do_GET()

    def do_GET(self) -> None:
        """Answer from the hub's files."""
        files = self.server.files
        name = self.path.rpartition(f"/org/name/resolve/{COMMIT}/")[2]
        if self.server.refusal:
            self._answer(self.server.refusal[0], b"", **self.server.refusal[1])
        elif self.path.startswith("/api/models/org/name/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": _digest(content)}
                for name, content in files.items()
            ]
            self._answer(200, json.dumps(tree).encode())
        elif self.path.startswith("/api/models/org/name"):
            revision = {"id": "org/name", "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
            self._answer(200, json.dumps(revision).encode())
        elif name in files:
            self._answer(200, files[name], ETag=_digest(files[name]), **{"X-Repo-Commit": COMMIT})
            if self.command == "GET":
                self.server.fetched.append(name)
        else:
            self._answer(404, b"")

    def _answer(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A running hub that huggingface_hub is told to use, with an empty cache."""
    server = Hub()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    yield server
    server.shutdown()
    server.server_close()


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


def _digest(content):
    return hashlib.sha256(content).hexdigest()
