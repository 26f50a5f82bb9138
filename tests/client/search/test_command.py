"""`python -m embedding search` finds what a sentence means, and refuses what it must not compare."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from embedding.__main__ import main
from embedding.client import waiting
from scripts.demo_model.draw import Scene, draw
from tests.client.scripted import Answer, scripted
from tests.client.search.files import some_vectors, write_npy, write_parquet
from tests.client.workers import SECRET


ROOT = Path(__file__).parents[3]
DRAWN = {"circle": "red", "square": "blue", "star": "green", "triangle": "yellow"}


@pytest.fixture(scope="session")
def drawn(http, tmp_path_factory):
    """Return a folder of drawn pictures with a file of their vectors, made by the worker that is asked."""
    folder = tmp_path_factory.mktemp("drawn")
    ids = [f"{colour} {shape}.png" for shape, colour in DRAWN.items()]
    for name, (shape, colour) in zip(ids, DRAWN.items(), strict=True):
        draw(Scene(colour, shape, "white")).save(folder / name)
    with http.client() as client:
        embedded = client.embed_images([folder / name for name in ids])
    write_parquet(folder / "v.parquet", ids, embedded.vectors, fingerprint=embedded.fingerprint)
    write_npy(folder / "v.npy", ids, embedded.vectors)
    return folder


@pytest.fixture
def search(http, drawn, monkeypatch, capsys):
    """Return what runs the command in the folder of drawn pictures: its status, stdout and stderr."""
    monkeypatch.setenv("EMBEDDING_HMAC_SECRET", SECRET)
    monkeypatch.chdir(drawn)

    def run(*arguments, where=("--url", *http.reached_by)):
        status = main(["search", *map(str, arguments), *where])
        return status, *capsys.readouterr()

    return run


def test_finds_by_a_sentence(search):
    """The picture that a sentence describes comes first, in a table."""
    status, out, err = search("v.parquet", "a red circle", "a green star", "--top", 2)
    first, second = out.strip().split("\n\n")

    assert (status, err) == (0, "")
    assert first.splitlines()[0] == "a red circle"
    assert first.splitlines()[1] == "rank  cosine  id"
    assert first.splitlines()[2].endswith("  red circle.png")
    assert second.splitlines()[2].endswith("  green star.png")
    assert len(first.splitlines()) == len(second.splitlines()) == 4


def test_finds_by_a_picture(search):
    """A picture finds itself with cosine 1."""
    status, out, _ = search("v.parquet", "--image", "blue square.png", "--top", 1, "--json")
    (query,) = json.loads(out)["queries"]

    assert status == 0
    assert query["image"] == "blue square.png"
    assert [(each["rank"], each["id"]) for each in query["results"]] == [(1, "blue square.png")]
    assert query["results"][0]["cosine"] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("source", ["file", "stdin"])
def test_a_file_of_queries(source, search, tmp_path, monkeypatch):
    """A sentence a line, blank lines left out; a line ends where a list's does."""
    lines = "a red circle\n\n  a blue\u2028square \r\n"
    (tmp_path / "q.txt").write_text(lines, encoding="utf-8")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    name = tmp_path / "q.txt" if source == "file" else "-"
    document = json.loads(search("v.parquet", "--queries", name, "--json")[1])

    assert [query["text"] for query in document["queries"]] == ["a red circle", "a blue\u2028square"]
    assert {key: document[key] for key in ("model", "rows", "skipped")} == {
        "model": "demo",
        "rows": 4,
        "skipped": 0,
    }


def test_page(search, tmp_path):
    """The page holds a picture for each id, and appears whole or not at all."""
    status, _, err = search("v.parquet", "a red circle", "--html", tmp_path / "out.html")
    page = (tmp_path / "out.html").read_text(encoding="utf-8")

    assert (status, err) == (0, f"{tmp_path / 'out.html'} written\n")
    assert page.count('<img src="data:image/jpeg;base64,') == len(DRAWN)
    assert [path.name for path in tmp_path.iterdir()] == ["out.html"]


def test_page_without_its_pictures(search, tmp_path):
    """Pictures that are elsewhere are counted, with the option that finds them."""
    page = tmp_path / "out.html"
    told = f"{page} written; 2 of its pictures cannot be read here: --pictures says where their paths begin\n"

    assert search("v.parquet", "a red circle", "--top", 2, "--html", page, "--pictures", tmp_path)[2] == told


def test_another_model_is_refused(search, drawn, tmp_path):
    """Vectors of another fingerprint are not compared, whatever is asked for."""
    path = write_parquet(tmp_path / "v.parquet", ["a"], some_vectors(1, 512), fingerprint="0" * 16)
    told = f"error: the vectors were made by fingerprint {'0' * 16} (demo), and the worker is fingerprint "

    assert search(path, "x")[2].startswith(told)
    assert search(path, "x", "--fingerprint", "0" * 16)[0] == 1
    assert "--fingerprint is 1, and " in search(path, "x", "--fingerprint", "1")[2]


def test_a_file_that_does_not_say(search):
    """Its vectors are compared once somebody says what made them."""
    fingerprint = json.loads(search("v.parquet", "a", "--json")[1])["fingerprint"]

    assert "v.npy does not say what made its vectors; if you know it, give" in search("v.npy", "a")[2]
    assert search("v.npy", "a red circle", "--fingerprint", fingerprint, "--json")[0] == 0
    assert "and the worker is fingerprint" in search("v.npy", "a", "--fingerprint", "0")[2]


def test_vectors_without_direction_are_told(search, drawn, tmp_path):
    """How many are left out stands on stderr."""
    fingerprint = json.loads(search("v.parquet", "a", "--json")[1])["fingerprint"]
    vectors = some_vectors(3, 512)
    vectors[1] = 0
    path = write_parquet(tmp_path / "v.parquet", list("abc"), vectors, fingerprint=fingerprint)

    assert search(path, "a")[2] == "1 of 3 vectors are not finite or zero: left out\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere.parquet", "x"], "nowhere.parquet is not a file"),
        (["v.parquet"], "no query is given"),
        (["v.parquet", " "], "a query is blank"),
        (["v.parquet", "\udcff"], "\\udcff: a text must be valid Unicode"),
        (["v.parquet", "--queries", "nowhere.txt"], "--queries nowhere.txt cannot be read"),
        (
            ["v.parquet", "--image", "nowhere.png"],
            "--image nowhere.png cannot be read: No such file",
        ),
        (["v.parquet", "--image", "."], "--image . cannot be read: Is a directory"),
        (["v.parquet", "x", "--image", "v.npy"], "v.npy: DECODE_ERROR: image is not a JPEG"),
        (["v.parquet", "--queries", "v.npy"], "--queries v.npy cannot be read: it is not UTF-8"),
        (["v.parquet", "x", "--html", "no/where/out.html"], "--html no/where/out.html cannot be written"),
        (["v.parquet", "x", "--html", "."], "--html . cannot be written: it is there, and no regular file"),
    ],
)
def test_what_cannot_be_searched(arguments, told, search):
    """It ends in one line that says what was wrong."""
    status, out, err = search(*arguments)

    assert (status, out) == (1, "")
    assert err.startswith(f"error: {told}")
    assert err.count("\n") == 1


def test_a_worker_that_is_not_there(search):
    """No such port: one line."""
    status, _, err = search("v.parquet", "x", where=("--url", "ftp://example.com"))

    assert (status, err.count("\n")) == (1, 1)


@pytest.mark.parametrize("silent_s", [0, 60])
def test_who_waits_is_told(silent_s, search, tmp_path, monkeypatch, short_pauses):
    """After a moment stderr says which attempts failed and that there are more; before it, nothing."""
    monkeypatch.setattr(waiting, "SILENT_S", silent_s)
    path = write_parquet(tmp_path / "v.parquet", ["a"], some_vectors(1, 4), fingerprint="f" * 16)
    with scripted() as script:
        script.answers = [Answer(503, b"busy", delay_s=0.2), Answer(503, b"busy")]
        status, out, err = search(path, "x", where=("--url", script.url))
        host = script.url.removeprefix("http://")

    told = [
        f"no answer from {host} after 1 attempt; the last: HTTP 503 busy; trying again",
        f"no answer from {host} after 2 attempts; the last: HTTP 503 busy; trying again",
    ]
    assert (status, err.splitlines()) == (0, [] if silent_s else told)
    assert out


def test_who_waits_in_the_queue_is_told(search, tmp_path, monkeypatch, short_pauses):
    """A job that no worker has taken yet is told of, as is one that failed and is sent again."""
    monkeypatch.setattr(waiting, "SILENT_S", 0)
    path = write_parquet(tmp_path / "v.parquet", ["a"], some_vectors(1, 4), fingerprint="f" * 16)
    queued, failed = {"id": "job-1", "status": "IN_QUEUE"}, {"id": "job-1", "status": "FAILED"}
    failed |= {"error": "OVERLOADED: the worker is full", "output": {"retryable": True}}
    with scripted() as script:
        monkeypatch.setenv("RUNPOD_API_KEY", "a-key-of-nobody")
        monkeypatch.setenv("RUNPOD_ENDPOINT_BASE_URL", f"{script.url}/v2")
        script.answers = [Answer(200, queued, delay_s=0.2), Answer(200, queued), Answer(200, failed)]
        status, _, err = search(path, "x", where=("--endpoint", "x1"))

    told = ["the job is IN_QUEUE", "OVERLOADED: the worker is full; trying again"]
    assert (status, err.splitlines()) == (0, told)


def test_nobody_is_told_afterwards(search):
    """A search leaves no handler behind."""
    before = logging.getLogger(waiting.LOGGER).handlers[:]
    search("v.parquet", "x")

    assert logging.getLogger(waiting.LOGGER).handlers == before
    assert not logging.getLogger(waiting.LOGGER).isEnabledFor(logging.INFO)


@pytest.mark.parametrize(("top", "allowed"), [(0, False), (1, True), (1000, True), (1001, False)])
def test_how_many(top, allowed, search):
    """1 to 1000 rows can be asked for."""
    if allowed:
        assert search("v.parquet", "x", "--top", top)[0] == 0
    else:
        with pytest.raises(SystemExit, match="2"):
            search("v.parquet", "x", "--top", top)


def test_on_this_machine(drawn):
    """--local needs neither service nor secret, and prints nothing but the answer."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "LANG", "HOME"}}
    command = [sys.executable, "-m", "embedding", "search", "v.parquet", "a red circle", "--local", "--json"]
    env = kept | {"PYTHONPATH": str(ROOT), "ALLOW_DEMO_MODEL": "1", "CLIP_PRECISION": "fp32"}
    done = subprocess.run(command, cwd=drawn, env=env, capture_output=True, text=True, timeout=60)

    assert json.loads(done.stdout)["queries"][0]["results"][0]["id"] == "red circle.png"
    assert (done.returncode, done.stderr) == (0, "")


def test_interrupted(drawn, tmp_path):
    """Ctrl-C ends it in one line and 130, whatever it waits for."""
    os.mkfifo(tmp_path / "never.txt")
    command = [
        sys.executable,
        "-m",
        "embedding",
        "search",
        drawn / "v.parquet",
        "--queries",
        tmp_path / "never.txt",
    ]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    writing = os.open(tmp_path / "never.txt", os.O_WRONLY)  # returns once the command reads
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=20)[1]
    os.close(writing)

    assert (process.returncode, told) == (130, "interrupted\n")
