"""A Hugging Face Hub of one repository on 127.0.0.1, as huggingface_hub's own client speaks to it."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub.constants


COMMIT = "c0ffee" + "0" * 34
LARGE_BYTES = 10_000  # from here on a file is stored apart from git, under its SHA-256


@dataclass(slots=True)
class Sent:
    """One answer with content: what was asked for from where on, and how many bytes were handed out."""

    name: str
    start: int
    count: int = 0


class Hub(ThreadingHTTPServer):
    """A hub whose repository holds *files*, or refuses everything.

    holds_at: an answer stops after so many bytes of a file, until `go_on` is set.
    altered: what is sent in a file's place, under its true checksum.
    claimed_bytes: the size that files are said to have.
    knows_ranges: whether a file is sent from where it is asked for.
    """

    daemon_threads = True

    def __init__(self, repo: str = "org/name") -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.repo = repo
        self.files: dict[str, bytes] = {}
        self.refusal: tuple[int, dict[str, str]] | None = None
        self.fetched: list[str] = []
        self.sent: list[Sent] = []
        self.holds_at: int | None = None
        self.go_on = threading.Event()
        self.held = threading.Event()
        self.altered: dict[str, bytes] = {}
        self.claimed_bytes: int | None = None
        self.knows_ranges = True

    @property
    def address(self) -> str:
        """Its HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.server_port}"

    def sent_of(self, name: str) -> list[Sent]:
        """Return the answers with content of one file."""
        return [each for each in self.sent if each.name == name]


class Answer(BaseHTTPRequestHandler):
    """Answers the requests of a download: the revision, its tree, a file's head and its content."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        """Answer as for GET, without the content."""
        self.do_GET()

    def do_GET(self) -> None:
        """Answer from the hub's files."""
        hub, files = self.server, self.server.files
        place, _, name = self.path.partition("/resolve/")
        name = name.partition("/")[2]
        if hub.refusal:
            self._answer(hub.refusal[0], b"", **hub.refusal[1])
        elif self.path.startswith(f"/api/models/{hub.repo}/tree/"):
            self._answer(200, json.dumps([self._entry(name, "path") for name in files]).encode())
        elif self.path.startswith(f"/api/models/{hub.repo}"):
            siblings = [self._entry(name, "rfilename") for name in files]
            told = {"id": hub.repo, "sha": COMMIT, "siblings": siblings}
            self._answer(200, json.dumps(told).encode())
        elif place == f"/{hub.repo}" and name in files:
            self._file(name)
        else:
            self._answer(404, b"", **{"X-Error-Code": "EntryNotFound"})

    def _entry(self, name: str, key: str) -> dict:
        content = self.server.files[name]
        size = self.server.claimed_bytes or len(content)
        entry = {"type": "file", key: name, "size": size, "oid": git_digest(content)}
        entry["blobId"] = entry["oid"]
        if len(content) >= LARGE_BYTES:
            digest = digest_of(content)
            entry["lfs"] = {"sha256": digest, "oid": digest, "size": size, "pointerSize": 100}
        return entry

    def _file(self, name: str) -> None:
        content = self.server.files[name]
        headers = {"ETag": f'"{digest_of(content)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range", "bytes=0-") if self.server.knows_ranges else "bytes=0-"
        start = int(asked.removeprefix("bytes=").partition("-")[0])
        part = self.server.altered.get(name, content)[start:]
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if self.command == "GET":
            self.server.fetched.append(name)
            self.server.sent.append(Sent(name, start))
        self._answer(206 if start else 200, part, sent=self.server.sent[-1:], **headers)

    def _answer(self, status: int, content: bytes, *, sent: list[Sent] | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "GET":
            return
        holds_at = self.server.holds_at if sent else None
        first = content if holds_at is None else content[:holds_at]
        self._send(first, sent)
        if len(first) < len(content):
            self.server.held.set()
            self.server.go_on.wait(60)
            self._send(content[len(first) :], sent)

    def _send(self, content: bytes, sent: list[Sent] | None) -> None:
        try:
            self.wfile.write(content)
        except OSError:  # the client is gone
            return
        if sent:
            sent[0].count += len(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def running_hub(repo: str = "org/name"):
    """Run a hub in the block."""
    server = Hub(repo)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield server
    finally:
        server.go_on.set()
        server.shutdown()
        server.server_close()


def use_hub(server: Hub, monkeypatch) -> None:
    """Let huggingface_hub in this process ask *server*."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def digest_of(content: bytes) -> str:
    """Return the checksum that the hub tells of *content*: its SHA-256, or git's of a small file."""
    return hashlib.sha256(content).hexdigest() if len(content) >= LARGE_BYTES else git_digest(content)


def git_digest(content: bytes) -> str:
    """Return git's SHA-1 of *content*."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
