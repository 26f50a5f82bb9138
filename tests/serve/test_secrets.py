"""The secret of the signatures and the platform's key are shown by no object, error, answer or log line."""

from __future__ import annotations

import base64
import json
import logging
import traceback

import pytest

from embedding.contract.canonical import Signable
from embedding.contract.keys import Keyring
from embedding.contract.signatures import Verifier, sign_v2, sign_v3
from embedding.errors import AuthFailed, StartupError
from embedding.serve.access import Access
from embedding.serve.mode import Mode
from embedding.settings import Settings
from tests.loopback import LoopbackRunPod
from tests.serve.conftest import HANDLER, WORKER


OLD_SECRET = "Zq7!vXw2#Lr9$Tk4%Nb6&Hy8*Jd3(Gf5)"
NEW_SECRET = "pM1@cV0^sU7~aE2|oI9;rY6<xQ4>kW8?"
SETTING = f"old:{OLD_SECRET},new:{NEW_SECRET}"
API_KEY = "rpa_F7Q2M9X4K1Z8W3V6"
PIECE_CHARS = 8


def shows(text: str, secret: str) -> bool:
    """Whether *text* holds *secret* or a piece of it, plain, in hex, in base64 or as JSON escapes it."""
    raw = secret.encode()
    pieces = {secret[at : at + PIECE_CHARS] for at in range(len(secret) - PIECE_CHARS + 1)}
    encoded = {raw.hex(), base64.b64encode(raw).decode().rstrip("="), json.dumps(secret)[1:-1]}
    return any(piece in text for piece in pieces | encoded)


@pytest.fixture
def settings():
    """Return the settings of a worker with two secrets."""
    return Settings.from_env({"EMBEDDING_HMAC_SECRET": SETTING})


def test_a_piece_would_be_found():
    """The search finds a secret in every form it looks for."""
    for text in (
        OLD_SECRET,
        f"...{OLD_SECRET[3:11]}...",
        OLD_SECRET.encode().hex(),
        repr(OLD_SECRET.encode()),
    ):
        assert shows(text, OLD_SECRET)
    assert not shows("old, new and nothing else", OLD_SECRET)


@pytest.mark.parametrize("form", [repr, str, "{}".format, lambda each: f"{[each]}"])
def test_no_object_shows_a_secret(settings, form):
    """Printed in any way, settings, keys, rings and verifiers show none."""
    ring = Keyring.parse(SETTING)
    verifier = Verifier(ring)
    keys = (ring, ring.newest, ring.keys, verifier, vars(verifier))
    for each in (settings, settings.hmac_secret, settings.model_dump(), settings.model_dump_json(), *keys):
        assert not shows(form(each), OLD_SECRET)
        assert not shows(form(each), NEW_SECRET)


@pytest.mark.parametrize(
    "setting",
    [
        NEW_SECRET[:31], f"old:{OLD_SECRET},new:{NEW_SECRET[:31]}", f"{OLD_SECRET},new:{NEW_SECRET}",
        f"k:{OLD_SECRET},k:{NEW_SECRET}", f"{OLD_SECRET}:{NEW_SECRET}", f"{OLD_SECRET}\ud800{NEW_SECRET}",
    ],
)  # fmt: skip
def test_no_error_shows_a_secret(setting):
    """A setting that cannot be read is told without it, the whole chain of causes included."""
    with pytest.raises(StartupError) as fault:
        Access.of(Settings.from_env({"EMBEDDING_HMAC_SECRET": setting}), Mode.QUEUE)
    told = "".join(traceback.format_exception(fault.value))

    assert "EMBEDDING_HMAC_SECRET" in str(fault.value)
    assert not shows(told, OLD_SECRET)
    assert not shows(told, NEW_SECRET)


def test_a_secret_in_the_wrong_variable_is_not_shown():
    """A secret that stands where a number belongs is refused without being told."""
    with pytest.raises(StartupError) as fault:
        Settings.from_env({"MAX_BATCH_SIZE": OLD_SECRET, "AUTH_MIN_VERSION": NEW_SECRET})

    assert not shows(str(fault.value), OLD_SECRET)
    assert not shows(str(fault.value), NEW_SECRET)


def test_no_refusal_shows_a_secret(caplog):
    """Neither what a refused caller is told nor its log holds a secret or the right signature."""
    caplog.set_level(logging.DEBUG)
    ring = Keyring.parse(SETTING)
    right = sign_v3({"text": "a cat"}, ring.newest)
    with pytest.raises(AuthFailed) as refusal:
        Verifier(ring).verify_job({"text": "a dog", "auth": right}, job_id=None)
    told = caplog.text + "".join(traceback.format_exception(refusal.value))

    assert "wrong v3 signature" in caplog.text
    assert not shows(told, NEW_SECRET)
    assert right["sig"] not in told


@pytest.mark.parametrize("job_loop", ["event", "sdk"])
def test_no_log_and_no_answer_shows_a_secret(job_loop):
    """At DEBUG, with good, bad and altered jobs and a failing platform, a worker's whole log shows none."""
    env = {name: value for name, value in WORKER.items() if name != "ALLOW_INSECURE_AUTH"}
    env |= {"EMBEDDING_HMAC_SECRET": SETTING, "RUNPOD_LOG_LEVEL": "DEBUG", "JOB_LOOP": job_loop}
    with LoopbackRunPod(hold_s=1.0, api_key=API_KEY) as platform, platform.worker(HANDLER, env=env) as worker:
        worker.wait_ready(60)
        platform.fail("job-take", 500, times=1)
        platform.fail("job-done", 500, times=1)
        answers = platform.wait_all(platform.submit_many([*good_jobs(), *bad_jobs()]), 60)
        shown = worker.log() + "".join(map(repr, answers))

    assert {answer.status for answer in answers[: len(good_jobs())]} == {"COMPLETED"}
    assert "signature refused" in shown
    for secret in (OLD_SECRET, NEW_SECRET, API_KEY):
        assert not shows(shown, secret)


def good_jobs() -> list[dict]:
    """Jobs signed in every way there is."""
    ring = Keyring.parse(SETTING)
    texts = {"texts": ["a red circle", "a blue square"]}
    single = sign_v2(Signable(text="a red circle"), ring.newest)
    return [
        *({**texts, "auth": sign_v3(texts, key)} for key in ring.keys),
        {"text": "a red circle", "auth": single},
        {"items": [{"text": "a red circle", "auth": single}, {"text": "another", "auth": single}]},
        {"action": "health"},
    ]


def bad_jobs() -> list:
    """Jobs that are unsigned, altered, signed by a stranger, or no jobs at all."""
    whole, _, single, *_ = good_jobs()
    stranger = Keyring.parse("s" * 32).newest
    return [
        {"text": "unsigned"},
        {**whole, "normalize": False},
        {**whole, "auth": {**whole["auth"], "sig": "0" * 64}},
        {**whole, "auth": {**whole["auth"], "kid": NEW_SECRET[:4], "extra": 1}},
        {**single, "text": "altered"},
        {"texts": ["x"], "auth": sign_v3({"texts": ["x"]}, stranger)},
        {"text": 5, "auth": single["auth"]},
        {
            "image_url": "https://127.0.0.1/",
            "auth": sign_v2(Signable(image_url="https://127.0.0.1/"), stranger),
        },
        [],
    ]
