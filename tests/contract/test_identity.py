"""Whether a worker is the expected one: three states, and nothing that a server says makes it raise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding.contract.identity import Match, commit_of, compare, digest_of


COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40
NO_DIGEST = "the worker declares no image digest"
DIGEST = "sha256:" + "ab" * 32
OTHER_DIGEST = "sha256:" + "cd" * 32

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    max_leaves=8,
)
FIELDS = st.sampled_from(["gitCommit", "declaredImageDigest", "buildTime"])


def declared(commit=None, digest=None):
    """Return an identity as a worker tells it."""
    source = "env" if digest else "none"
    return {
        "gitCommit": commit,
        "buildTime": None,
        "declaredImageDigest": digest,
        "imageDigestSource": source,
    }


class TestStates:
    @pytest.mark.parametrize(
        ("commit", "expected"),
        [
            (COMMIT, COMMIT),
            (COMMIT, COMMIT[:7]),
            (COMMIT[:7], COMMIT),
            (COMMIT.upper(), f" {COMMIT} "),
            (COMMIT + "0" * 24, COMMIT + "0" * 24),
        ],
    )
    def test_commits_that_agree(self, commit, expected):
        """A commit agrees with itself and with its beginning, in either place and either case."""
        assert compare(declared(commit), expected_commit=expected, expected_digest=None) == Match(True, None)

    @pytest.mark.parametrize("worker", [DIGEST, DIGEST[7:], f"registry.test:5000/me/clip@{DIGEST}"])
    @pytest.mark.parametrize("expected", [DIGEST, DIGEST[7:].upper(), f"me/clip@{DIGEST}"])
    def test_digests_that_agree(self, worker, expected):
        """A digest agrees with itself, bare, after sha256: and in a reference to the image."""
        match = compare(declared(None, worker), expected_commit=None, expected_digest=expected)

        assert match == Match(True, None)

    @pytest.mark.parametrize(
        ("identity", "reason"),
        [
            (
                declared(OTHER, DIGEST),
                "the worker's commit is ffffffffffff, expected is 0123456789ab",
            ),
            (
                declared(COMMIT, OTHER_DIGEST),
                "the worker's image digest is cdcdcdcdcdcd, expected is abababababab",
            ),
            (declared("main", DIGEST), "the commit that the worker declares has not the form of one"),
            (declared(COMMIT, "latest"), "the image digest that the worker declares has not the form of one"),
            (
                declared(OTHER, None),
                f"the worker's commit is ffffffffffff, expected is 0123456789ab; {NO_DIGEST}",
            ),
        ],
        ids=["commit", "digest", "no commit", "no digest", "one differs, one is not declared"],
    )
    def test_one_difference_is_a_mismatch(self, identity, reason):
        """Whatever else agrees or is unknown, what differs is named."""
        match = compare(identity, expected_commit=COMMIT, expected_digest=DIGEST)

        assert match == Match(False, reason)

    @pytest.mark.parametrize(
        ("identity", "commit", "digest", "reason"),
        [
            (declared(COMMIT, DIGEST), None, None, "nothing is expected"),
            (declared(COMMIT, DIGEST), "", " ", "nothing is expected"),
            ({}, COMMIT, None, "the worker declares no commit"),
            (declared(COMMIT, " "), COMMIT, DIGEST, NO_DIGEST),
            (declared(COMMIT, DIGEST), "main", DIGEST, "the expected commit has not the form of one"),
            (declared(COMMIT), COMMIT[:6], None, "the expected commit has not the form of one"),
            (
                declared(COMMIT, DIGEST),
                None,
                DIGEST[:-1],
                "the expected image digest has not the form of one",
            ),
        ],
    )
    def test_what_cannot_be_told(self, identity, commit, digest, reason):
        """Nothing expected, nothing declared, or an expectation that is none: neither true nor false."""
        assert compare(identity, expected_commit=commit, expected_digest=digest) == Match(None, reason)

    @pytest.mark.parametrize("length", [7, 8, 63, 64])
    def test_lengths_of_a_commit(self, length):
        """Seven digits to 64 name a commit."""
        assert commit_of("a" * length) == "a" * length

    @pytest.mark.parametrize("text", ["a" * 6, "a" * 65, "g" * 40, "a" * 40 + "\n-", "", None, 5, b"a" * 40])
    def test_what_is_no_commit(self, text):
        """Fewer, more, or anything else names none."""
        assert commit_of(text) is None

    @pytest.mark.parametrize("text", ["sha512:" + "a" * 64, "a" * 63, "a" * 65, "@" + "a" * 64, "", None, 5])
    def test_what_is_no_digest(self, text):
        """Another algorithm, another length, or a reference without a name holds none."""
        assert digest_of(text) is None

    def test_fields(self):
        """An answer carries both fields, whatever the state."""
        told = Match(None, "nothing is expected").as_json()

        assert told == {"identityMatches": None, "identityMismatchReason": "nothing is expected"}


@given(ANYTHING | st.dictionaries(FIELDS, ANYTHING), st.none() | st.text(), st.none() | st.text())
def test_any_answer_is_borne(identity, commit, digest):
    """Whatever is declared and expected, there is a state, and a reason unless it is true."""
    for match in (
        compare(identity, expected_commit=commit, expected_digest=digest),
        compare(identity, expected_commit=COMMIT, expected_digest=DIGEST),
    ):
        assert match.matches in {True, False, None}
        assert (match.reason is None) == (match.matches is True)


@given(st.text(min_size=1), st.text(min_size=1))
def test_any_words_of_a_server_stay_unquoted(commit, digest):
    """What has not the form of a commit or digest is not repeated, however long or strange."""
    reason = compare(declared(commit, digest), expected_commit=COMMIT, expected_digest=DIGEST).reason or ""

    assert reason.isascii()
    assert reason.isprintable()
    assert len(reason) < 200
