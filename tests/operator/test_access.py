"""Who may ask for an operator's actions: who signs all of the job, and anybody where the operator says so."""

from __future__ import annotations

import asyncio
import time

import pytest

from embedding.contract.canonical import Signable
from embedding.contract.keys import Key, Keyring
from embedding.contract.signatures import REFUSAL, Verifier, sign_v2, sign_v3
from embedding.errors import AuthFailed
from embedding.operator.operator import Operator, OperatorTerms
from tests.fakes import fake_actions


OFF = (
    "this action is an operator's, and off on this worker: set EMBEDDING_HMAC_SECRET and sign the job (v3), "
    "or set ALLOW_OPERATOR_ACTIONS=1"
)
KEY = Key("default", b"s" * 32)
JOBS = [
    {"action": "gpu_info"},
    {"test": "nvidia-smi"},
    {"action": "list_files"},
    {"action": "download_models", "models": ["a/b"]},
]


class Recording(Operator):
    """Does nothing, and says so."""

    async def run(self, request, _report):
        return {"done": request.action}


def ask(job_input, *, is_allowed=False, verifier=None, **options):
    """Return the answer to *job_input* where the switch is *is_allowed*."""
    operator = Recording(OperatorTerms(is_allowed, ("/models",), (), None, {}))
    return asyncio.run(fake_actions(operator=operator, verifier=verifier).run(job_input, **options))


def refusal(job_input, **options):
    """Return what the caller of *job_input* is told."""
    with pytest.raises(AuthFailed) as fault:
        ask(job_input, **options)
    return fault.value.message


@pytest.fixture
def verifier():
    """What judges signatures by KEY."""
    return Verifier(Keyring((KEY,)))


@pytest.mark.parametrize("job_input", JOBS)
class TestEach:
    def test_off(self, job_input):
        """On a worker that asks for no signature it is off, and says how to switch it on."""
        assert refusal(job_input) == OFF

    def test_switched_on(self, job_input):
        """There the switch opens it to everybody."""
        assert ask(job_input, is_allowed=True)["done"]

    @pytest.mark.parametrize("is_allowed", [False, True])
    def test_signed(self, job_input, verifier, is_allowed):
        """Where callers sign, it is done for a job that v3 covers, whatever the switch says."""
        job = {**job_input, "auth": sign_v3(job_input, KEY)}

        assert ask(job, verifier=verifier, is_allowed=is_allowed, job_id="1")["done"]

    @pytest.mark.parametrize("is_allowed", [False, True])
    @pytest.mark.parametrize(
        "auth",
        [
            None,
            {},
            {"ts": int(time.time()), "sig": "0" * 64},
            sign_v2(Signable(text="nvidia-smi"), KEY),
            sign_v3({"action": "health"}, KEY),
            sign_v3({"action": "gpu_info"}, Key("default", b"t" * 32)),
        ],
        ids=["none", "empty", "v1", "v2", "another job's", "another key's"],
    )
    def test_not_signed(self, job_input, verifier, is_allowed, auth):
        """Without that it is refused in the one way of all refusals, and the switch changes nothing."""
        assert refusal({**job_input, "auth": auth}, verifier=verifier, is_allowed=is_allowed) == REFUSAL

    def test_a_token_is_not_enough(self, job_input, verifier):
        """A caller whom the transport vouches for needs the switch."""
        assert refusal(job_input, verifier=verifier, is_trusted=True) == REFUSAL
        assert refusal(job_input, is_trusted=True) == OFF
        assert ask(job_input, verifier=verifier, is_trusted=True, is_allowed=True)["done"]

    def test_not_over_http(self, job_input):
        """Where there are no operator's actions at all, as over HTTP, nothing opens them."""
        with pytest.raises(AuthFailed, match="off on this worker"):
            asyncio.run(fake_actions().run(job_input))


def test_a_signature_serves_one_job(verifier):
    """The same signed job under another id is a replay."""
    job = {"action": "gpu_info", "auth": sign_v3({"action": "gpu_info"}, KEY)}
    ask(job, verifier=verifier, job_id="1")

    assert refusal(job, verifier=verifier, job_id="2") == REFUSAL
