"""Who may ask, by what the operator has set."""

from __future__ import annotations

import pytest

from embedding.contract.signatures import REFUSAL
from embedding.errors import AuthFailed, StartupError
from embedding.serve.access import Access
from embedding.serve.mode import Mode
from embedding.settings import Settings


SECRET = {"EMBEDDING_HMAC_SECRET": "s" * 32}
TOKEN = {"WORKER_TOKEN": "t" * 32}
OPEN = {"ALLOW_INSECURE_AUTH": "1"}
GOOD, BAD = f"Bearer {'t' * 32}", f"Bearer {'u' * 32}"


def access(env, mode=Mode.HTTP):
    """Return who may ask a worker with *env* in *mode*."""
    return Access.of(Settings.from_env(env), mode)


@pytest.mark.parametrize(
    ("env", "ways", "unsigned"),
    [
        (SECRET, ["signature"], False),
        (TOKEN, ["bearer"], None),
        (SECRET | TOKEN, ["bearer", "signature"], False),
        (OPEN, ["none"], True),
        (OPEN | SECRET | TOKEN, ["none"], True),
    ],
)
def test_ways(env, ways, unsigned):
    """What is set is what may be shown; a request without it is trusted, judged, or refused."""
    found = access(env)

    assert found.ways() == ways
    assert found.is_open is (ways == ["none"])
    if unsigned is None:
        with pytest.raises(AuthFailed, match=REFUSAL):
            found.trusts("")
    else:
        assert found.trusts("") is unsigned
    assert ("bearer" not in ways) or found.trusts(GOOD) is True


def test_wrong_token():
    """One that is wrong is refused, whatever else may be shown."""
    with pytest.raises(AuthFailed, match=REFUSAL):
        access(SECRET | TOKEN).trusts(BAD)


def test_token_where_none_is_set():
    """One that is sent all the same opens nothing: the request is judged by its signature."""
    assert access(SECRET).trusts(GOOD) is False


@pytest.mark.parametrize("mode", [Mode.SMOKE_TEST, Mode.DRY_RUN])
def test_local_modes_are_open(mode):
    """What no stranger reaches asks for nothing."""
    assert access(SECRET | TOKEN, mode).is_open


@pytest.mark.parametrize(
    ("env", "mode", "told"),
    [
        ({}, Mode.HTTP, "EMBEDDING_HMAC_SECRET and WORKER_TOKEN are not set, .*: set one, or ALLOW_"),
        ({}, Mode.QUEUE, "EMBEDDING_HMAC_SECRET is not set, .*: set it, or ALLOW_"),
        (TOKEN, Mode.QUEUE, "EMBEDDING_HMAC_SECRET is not set"),
        ({"EMBEDDING_HMAC_SECRET": "short"}, Mode.HTTP, "EMBEDDING_HMAC_SECRET: every secret must have"),
        ({"WORKER_TOKEN": "short"}, Mode.HTTP, "WORKER_TOKEN: every token must have"),
    ],
)
def test_refusals(env, mode, told):
    """Nothing set, and what cannot be read, is told in one sentence."""
    with pytest.raises(StartupError, match=told):
        access(env, mode)


@pytest.mark.parametrize(
    ("env", "mode", "warns"),
    [
        (OPEN, Mode.HTTP, False),
        (OPEN | SECRET, Mode.HTTP, True),
        (OPEN | TOKEN, Mode.HTTP, True),
        (OPEN | SECRET, Mode.QUEUE, True),
        (OPEN | TOKEN, Mode.QUEUE, False),
        (OPEN | SECRET, Mode.DRY_RUN, False),
        (SECRET, Mode.HTTP, False),
    ],
)
def test_a_secret_that_is_not_looked_at(caplog, env, mode, warns):
    """Who opens a worker although callers could sign is told so at every start."""
    access(env, mode)

    assert caplog.text.count("ALLOW_INSECURE_AUTH=1") == warns
