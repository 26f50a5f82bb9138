"""`python -m embedding sign`: a job from a file, signed as workers ask."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from embedding.__main__ import main
from embedding.contract.keys import Keyring
from tests.contract.signing import accepts_job, verifier


ROOT = Path(__file__).parents[2]
SECRET = "new:" + "n" * 32
JOB = {"input": {"texts": ["a", "é"], "normalize": False}, "policy": {"ttl": 60_000}}


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    """The caller's pair, in the environment."""
    monkeypatch.setenv("EMBEDDING_HMAC_SECRET", SECRET)


def sign(*arguments, program=("-m", "embedding")):
    """Run the command as its own process, which sees the environment as a caller's shell has it."""
    return subprocess.run(
        [sys.executable, *program, "sign", *arguments],
        cwd=ROOT,
        env={**os.environ, "EMBEDDING_HMAC_SECRET": SECRET},
        input=json.dumps(JOB),
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_signed_job_is_accepted():
    """What it prints is the job with a signature that workers accept, and all else as it was."""
    done = sign("-", "--lifetime-s", "60")
    job = json.loads(done.stdout)
    auth = job["input"]["auth"]

    assert done.stderr == ""
    assert {**job, "input": {name: job["input"][name] for name in JOB["input"]}} == JOB
    assert (auth["kid"], auth["exp"] - auth["iat"]) == ("new", 60)
    assert accepts_job(job["input"], by=verifier(Keyring.parse(SECRET), now=time.time()))


def test_body_of_a_request():
    """With --body it prints the signed input alone, which HTTP carries."""
    body = json.loads(sign("-", "--body").stdout)

    assert body.keys() == {*JOB["input"], "auth"}
    assert accepts_job(body, by=verifier(Keyring.parse(SECRET), now=time.time()))


def test_body_of_openais_form(monkeypatch, capsys):
    """OpenAI's form carries `auth` inside, where the route looks for it."""
    job = {"input": {"openai_route": "/v1/embeddings", "openai_input": {"input": "a"}}}
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(job).encode())))
    main(["sign", "--body", "-"])
    body = json.loads(capsys.readouterr().out)
    auth = body.pop("auth")

    assert body == {"input": "a"}
    assert accepts_job({**job["input"], "auth": auth}, by=verifier(Keyring.parse(SECRET), now=time.time()))


def test_needs_no_torch():
    """A caller's machine signs without what only a worker needs."""
    program = "import sys; sys.modules['torch'] = None; from embedding.__main__ import main; sys.exit(main())"
    done = sign("-", program=("-c", program))

    assert done.returncode == 0, done.stderr


def test_old_signature_is_replaced(monkeypatch, capsys):
    """A job that was signed before is signed anew."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(JOB).encode())))
    main(["sign", "-"])
    first = capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(first.encode())))
    main(["sign", "-"])
    job = json.loads(capsys.readouterr().out)

    assert job["input"]["auth"] != json.loads(first)["input"]["auth"]
    assert accepts_job(job["input"], by=verifier(Keyring.parse(SECRET), now=time.time()))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "job.json is not JSON: "),
        (b"[" * 100_000, "job.json is not JSON: "),
        (b"\xff", "job.json cannot be read: "),
        (b"[]", 'job.json is not a job: it must be {"input": {...}}'),
        (b'{"text": "x"}', 'job.json is not a job: it must be {"input": {...}}'),
        (b'{"input": {"text": NaN}}', "job.json cannot be signed: the input holds a value that JSON"),
        (b'{"input": {"n": 9007199254740992}}', "job.json cannot be signed: the input holds a value"),
    ],
    ids=["empty", "deep", "not text", "list", "bare input", "NaN", "large integer"],
)
def test_what_is_no_job_is_told(content, told, tmp_path, monkeypatch, capsys):
    """One line that names the file and what is wrong, exit status 1, nothing on stdout."""
    monkeypatch.chdir(tmp_path)
    Path("job.json").write_bytes(content)

    assert main(["sign", "job.json"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"error: {told}")
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize(("lifetime_s", "status"), [(0, 1), (1, 0), (3600, 0), (3601, 1)])
def test_lifetime_has_limits(lifetime_s, status, tmp_path, capsys):
    """A signature is good for 1 to 3600 seconds."""
    file = tmp_path / "job.json"
    file.write_text(json.dumps(JOB), encoding="utf-8")

    assert main(["sign", str(file), "--lifetime-s", str(lifetime_s)]) == status
    assert ("lifetime_s must be 1 to 3600" in capsys.readouterr().err) is bool(status)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("", "EMBEDDING_HMAC_SECRET is not set"),
        ("short", "every secret must have at least 32 bytes"),
        ("a,b", "must be one secret, or kid:secret pairs"),
    ],
)
def test_secret_that_cannot_sign(value, told, tmp_path, monkeypatch, capsys):
    """A missing or unusable secret is told, and never printed."""
    file = tmp_path / "job.json"
    file.write_text(json.dumps(JOB), encoding="utf-8")
    monkeypatch.setenv("EMBEDDING_HMAC_SECRET", value)

    assert main(["sign", str(file)]) == 1
    assert told in capsys.readouterr().err


def test_missing_file(capsys):
    """A file that is not there is told by its name."""
    assert main(["sign", "/nowhere/job.json"]) == 1
    assert "/nowhere/job.json cannot be read: " in capsys.readouterr().err
