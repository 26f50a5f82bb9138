"""Bearer tokens: the value of WORKER_TOKEN, for callers that cannot sign.

Rotation: several, comma-separated; all are good. A token covers nothing of a request and serves until it is
removed, so TLS must carry it. It has at least 32 bytes. No message or repr shows one.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final


SETTING: Final = "WORKER_TOKEN"
MIN_TOKEN_BYTES: Final = 32
MAX_TOKENS: Final = 16  # each costs a comparison


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens that are good, as SHA-256 digests."""

    digests: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def parse(cls, setting: str) -> Tokens:
        """Read comma-separated tokens. Raise ValueError, one sentence that names the setting and no token."""
        tokens = [token.strip() for token in setting.split(",") if token.strip()]
        if not 1 <= len(tokens) <= MAX_TOKENS:
            raise ValueError(f"{SETTING} must hold 1 to {MAX_TOKENS} tokens, separated by commas")
        if any(len(_bytes_of(token)) < MIN_TOKEN_BYTES for token in tokens):
            raise ValueError(f"{SETTING}: every token must have at least {MIN_TOKEN_BYTES} bytes")
        return cls(tuple(_digest(token) for token in tokens))

    def accept(self, token: str) -> bool:
        """Return whether *token* is one of them, in a time that tells nothing of which or how near."""
        given = _digest(token)
        return sum(hmac.compare_digest(given, digest) for digest in self.digests) > 0  # all are compared


def _digest(token: str) -> bytes:
    return hashlib.sha256(_bytes_of(token)).digest()


def _bytes_of(token: str) -> bytes:
    return token.encode(errors="surrogateescape")
