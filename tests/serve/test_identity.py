"""What a worker says of its build, and of what was expected: it warns, and never refuses."""

from __future__ import annotations

import pytest

from embedding.serve.diagnostics import identity, identity_row, warn_of_identity
from embedding.settings import Settings


COMMIT = "0123456789abcdef0123456789abcdef01234567"
DIGEST = "sha256:" + "ab" * 32
EXPECTED = {"EXPECTED_WORKER_GIT_COMMIT": COMMIT[:8], "EXPECTED_WORKER_IMAGE_DIGEST": DIGEST}
NO_COMMIT, NO_DIGEST = "the worker declares no commit", "the worker declares no image digest"
UNTOLD = "commit unknown, built unknown, image digest not declared"
DIFFERS = "the worker's commit is ffffffffffff, expected is 01234567"


def test_nothing_declared_and_nothing_expected():
    """The four fields are there, and none that compares."""
    settings = Settings.from_env({})

    assert identity(settings) == {
        "gitCommit": None,
        "buildTime": None,
        "declaredImageDigest": None,
        "imageDigestSource": "none",
    }
    assert identity_row(settings) == UNTOLD


@pytest.mark.parametrize(
    ("declared", "matches", "row"),
    [
        (
            {"WORKER_GIT_COMMIT": COMMIT, "WORKER_BUILD_TIME": "2026-01-02", "IMAGE_DIGEST": DIGEST},
            True,
            f"commit {COMMIT}, built 2026-01-02, image digest {DIGEST}: as expected",
        ),
        (
            {"WORKER_GIT_COMMIT": "f" * 40, "IMAGE_DIGEST": DIGEST},
            False,
            f"commit {'f' * 40}, built unknown, image digest {DIGEST}: NOT as expected, {DIFFERS}",
        ),
        ({}, None, f"{UNTOLD}: cannot be compared, {NO_COMMIT}; {NO_DIGEST}"),
    ],
    ids=["as expected", "another", "untold"],
)
def test_three_states(declared, matches, row):
    """Answers and the start's report say whether the worker is the one that was expected."""
    settings = Settings.from_env(declared | EXPECTED)

    assert identity(settings)["identityMatches"] is matches
    assert identity_row(settings) == row


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({}, []),
        (EXPECTED, []),
        ({"IMAGE_DIGEST": DIGEST}, []),
        (
            EXPECTED | {"WORKER_GIT_COMMIT": "f" * 40},
            [f"this is not the worker that was expected: {DIFFERS}; {NO_DIGEST}"],
        ),
        (
            {"IMAGE_DIGEST": "latest"},
            ["IMAGE_DIGEST is not a digest: declare it as sha256: and 64 hexadecimal digits"],
        ),
    ],
    ids=["nothing", "undeclared", "declared", "mismatch", "no digest"],
)
def test_warnings(env, told, monkeypatch):
    """A mismatch is one warning, and so is a digest that is none; what is not known is no warning."""
    warned = []
    monkeypatch.setattr(
        "embedding.serve.diagnostics.log.warning", lambda text, *rest: warned.append(text % rest)
    )
    warn_of_identity(Settings.from_env(env))

    assert warned == told
