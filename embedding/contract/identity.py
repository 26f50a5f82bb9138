"""Is this the worker that was deployed: what it declares of its build, against what is expected.

The answer warns and never blocks, and it has three states, because a worker that declares nothing is no
proof of a wrong one. A commit is a Git object's name in hexadecimal, and one of seven digits or more stands
for those that begin with it; a digest is the SHA-256 that pins an image, as registries write it. What is
compared may come from any server, so nothing in it raises, and only what has the right form is quoted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final


if TYPE_CHECKING:
    from collections.abc import Callable

COMMIT: Final = re.compile(r"[0-9a-f]{7,64}")  # of SHA-1 40, of SHA-256 64
DIGEST: Final = re.compile(r"(?:[^\s@]+@)?(?:sha256:)?([0-9a-f]{64})")
SHOWN_DIGITS: Final = 12


@dataclass(frozen=True, slots=True)
class Match:
    """Whether an identity is the expected one; None where that cannot be told. *reason* says why not True."""

    matches: bool | None
    reason: str | None

    def as_json(self) -> dict[str, bool | str | None]:
        """Return the two fields that answers and reports carry."""
        return {"identityMatches": self.matches, "identityMismatchReason": self.reason}


def compare(
    identity: Mapping[str, Any], *, expected_commit: str | None, expected_digest: str | None
) -> Match:
    """Return how *identity*, as `health` and `/v1/ping` tell it, stands to what is expected; never raises.

    One difference makes it False; else one thing that is not declared, or is no commit or digest where it is
    expected, makes it None. An empty expectation expects nothing.
    """
    declared = identity if isinstance(identity, Mapping) else {}
    each = [
        _compare("commit", declared.get("gitCommit"), expected_commit, read=commit_of),
        _compare("image digest", declared.get("declaredImageDigest"), expected_digest, read=digest_of),
    ]
    asked = [match for match in each if match is not None]
    if not asked:
        return Match(None, "nothing is expected")
    told = "; ".join(match.reason for match in asked if match.reason)
    states = {match.matches for match in asked}
    return Match(False if False in states else None if None in states else True, told or None)


def commit_of(text: Any) -> str | None:
    """Return the commit that *text* names, in small letters; None if it names none."""
    name = text.strip().lower() if isinstance(text, str) else ""
    return name if COMMIT.fullmatch(name) else None


def digest_of(text: Any) -> str | None:
    """Return the 64 digits of *text*: bare, after `sha256:`, or after `repository@sha256:`; None for else."""
    found = DIGEST.fullmatch(text.strip().lower()) if isinstance(text, str) else None
    return found[1] if found else None


def _compare(
    what: str, declared: Any, expected: str | None, *, read: Callable[[Any], str | None]
) -> Match | None:
    """Return how one of the two stands, None where it is not asked for."""
    if not expected or not expected.strip():
        return None
    wanted, got = read(expected), read(declared)
    if wanted is None:
        return Match(None, f"the expected {what} has not the form of one")
    if not isinstance(declared, str) or not declared.strip():
        return Match(None, f"the worker declares no {what}")
    if got is None:
        return Match(False, f"the {what} that the worker declares has not the form of one")
    if got.startswith(wanted) or wanted.startswith(got):
        return Match(True, None)
    shown = f"{got[:SHOWN_DIGITS]}, expected is {wanted[:SHOWN_DIGITS]}"
    return Match(False, f"the worker's {what} is {shown}")
