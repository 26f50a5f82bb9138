"""Which worker `embed` and `search` ask, and what they say when they are told of none, or of a wrong one."""

from __future__ import annotations

import socket

import pytest

from embedding.__main__ import main
from embedding.settings import ClientSettings, Settings
from tests.client.search.files import some_vectors, write_parquet


TOKEN = {"WORKER_TOKEN": "a-token-that-nobody-may-read"}
KEY = {"RUNPOD_API_KEY": "a-key-that-nobody-may-read"}
LINES = "a red circle\na blue square\n"


@pytest.fixture(params=["embed", "search"])
def run(request, tmp_path, monkeypatch, capsys):
    """Return what runs each command with nothing but *env* in the environment: its status and stderr."""
    write_parquet(tmp_path / "v.parquet", ["a"], some_vectors(1, 4))
    (tmp_path / "lines.txt").write_text(LINES, encoding="utf-8")
    given = {"embed": ["lines.txt", "--out", "out.parquet"], "search": ["v.parquet", "a red circle"]}
    monkeypatch.chdir(tmp_path)
    for kind in (ClientSettings, Settings):
        for field in kind.model_fields.values():
            monkeypatch.delenv(field.alias, raising=False)

    def command(*where, env):
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        status = main([request.param, *given[request.param], *where])
        return status, capsys.readouterr().err

    return command


@pytest.mark.parametrize(
    ("where", "env", "told"),
    [
        ([], {}, "no worker is named: give --url, --endpoint or --local; without them the environment is "),
        ([], KEY, "no worker is named: give --url, --endpoint or --local; without them the environment is "),
        (["--url", "127.0.0.1:8431"], {}, "--url must be an address that begins with https:// or http://, "),
        (["--url", "ftp://example.com"], {}, "--url must be an address that begins with "),
        (["--url", ""], {}, "--url must be an address that begins with "),
        (["--url", "http://example.com"], TOKEN, "--url is plain http, "),
        (["--endpoint", "https://x/y"], KEY, "--endpoint must be the endpoint's id alone, "),
        (["--endpoint", "x1"], {}, "the environment is not valid: RUNPOD_API_KEY: it is not set"),
        (["--local"], {}, "--local: no model is chosen, "),
        (["--local"], {"MAX_BATCH_SIZE": "0"}, "the environment is not valid: MAX_BATCH_SIZE: "),
    ],
)
def test_a_worker_that_cannot_be_asked(run, where, env, told):
    """It ends in one line that names the argument, and holds no key."""
    status, err = run(*where, env=env)

    assert status == 1
    assert err.startswith(f"error: {told}")
    assert err.count("\n") == 1
    assert "nobody-may-read" not in err


def test_a_worker_that_is_not_there(run, monkeypatch):
    """The host is named, and not what stands before it in the URL."""
    monkeypatch.setattr("embedding.client.retries.LONGEST_PAUSE_S", 1e-3)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        status, err = run("--url", f"http://user:secret-word@{host}", env={})

    assert status == 1
    assert f"error: no answer from {host} after " in err
    assert "secret-word" not in err
