"""Decide which secrets are active: the value of EMBEDDING_HMAC_SECRET as a ring of keys.

Rotation: add the new pair at the end of the workers' setting, give the new secret to the callers, remove the
old pair. To rotate a bare secret, write it as `default:SECRET` in front of the new pair.

A secret has at least 32 bytes, what HMAC-SHA256 gains from. No message or repr shows one.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from typing import Final


SETTING: Final = "EMBEDDING_HMAC_SECRET"
DEFAULT_KID: Final = "default"
MIN_SECRET_BYTES: Final = 32
KID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class Key:
    """One secret and the id that v3 signatures name it by; ValueError when either is out of its limits."""

    kid: str
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not KID.fullmatch(self.kid):
            raise ValueError(f"{SETTING}: a key id must be 1 to 64 of A-Z a-z 0-9 . _ -")
        if len(self.secret) < MIN_SECRET_BYTES:
            raise ValueError(f"{SETTING}: every secret must have at least {MIN_SECRET_BYTES} bytes")

    def mac(self, message: bytes) -> bytes:
        """Return the HMAC-SHA256 of `message`, 32 bytes."""
        return hmac.digest(self.secret, message, "sha256")


@dataclass(frozen=True, slots=True)
class Keyring:
    """The active keys, oldest to newest; all of them verify, the newest signs."""

    keys: tuple[Key, ...]

    @classmethod
    def parse(cls, setting: str) -> Keyring:
        """Read one bare secret (its kid is `default`), or comma-separated kid:secret pairs, oldest first.

        A bare secret holds no colon and no comma; space around kids and secrets is dropped.
        Raise ValueError, one sentence that names the setting and never a secret.
        """
        try:
            setting.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{SETTING} must be valid UTF-8 text") from None  # the cause holds the secret
        if ":" not in setting and "," not in setting:
            return cls((Key(DEFAULT_KID, setting.strip().encode()),))
        pairs = [part.split(":", maxsplit=1) for part in setting.split(",")]
        if not all(len(pair) == 2 for pair in pairs):  # noqa: PLR2004  (a pair)
            raise ValueError(f"{SETTING} must be one secret, or kid:secret pairs separated by commas")
        keys = tuple(Key(kid.strip(), secret.strip().encode()) for kid, secret in pairs)
        if len({key.kid for key in keys}) < len(keys):
            raise ValueError(f"{SETTING}: every key id must be used once")
        return cls(keys)

    @property
    def newest(self) -> Key:
        """The key that signs."""
        return self.keys[-1]

    def signed(self, message: bytes, mac: bytes, *, kid: str | None = None) -> bool:
        """Return whether `mac` is that of `message` under the key `kid`, or under any key without one."""
        matched = False
        for key in self.keys:
            equal = hmac.compare_digest(key.mac(message), mac)
            matched |= equal & (kid is None or kid == key.kid)
        return matched
