"""Keys, jobs and items that the tests of signatures share."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from embedding.contract.canonical import Signable, canonical_json
from embedding.contract.keys import Key, Keyring
from embedding.contract.signatures import REFUSAL, Verifier, sign_v3
from embedding.errors import AuthFailed


if TYPE_CHECKING:
    from collections.abc import Callable


NOW = 1_767_225_600
URL = "https://images.example.com/cat.jpg"
NONCE = "abcdefghijklmnop"
CHARACTERS = [*map(chr, range(256)), "\u0661", "\uff21", "\u2028", "\u212a", "\ud800"]
OLD = Key("old", b"o" * 32)
NEW = Key("new", b"n" * 32)
RING = Keyring((OLD, NEW))
JOB = {
    "action": "batch",
    "items": [{"image_url": URL, "request_id": "1"}, {"text": "a cat"}],
    "normalize": True,
}


def verifier(keyring: Keyring = RING, *, now: float = NOW, **options) -> Verifier:
    """A worker's verifier whose clock stands still."""
    return Verifier(keyring, clock=lambda: now, **options)


def signed(job_input: dict = JOB, key: Key = NEW, **options) -> dict:
    """A job with the v3 signature of a well-behaved client."""
    return {**job_input, "auth": sign_v3(job_input, key, **{"now": NOW, "nonce": NONCE, **options})}


def signed_by_hand(job_input: dict = JOB, key: Key = NEW, **changed) -> dict:
    """Sign whatever auth says, within limits or not, so that only the limit itself can refuse it."""
    auth = {"v": 3, "kid": key.kid, "iat": NOW, "exp": NOW + 60, "nonce": NONCE, **changed}
    digest = hashlib.sha256(canonical_json(job_input)).hexdigest()
    covered = "\n".join(str(each) for each in ("clip-embed/v3", *list(auth.values())[1:], digest))
    return {**job_input, "auth": {**auth, "sig": mac(key.secret, covered)}}


def mac(secret: bytes, message: str) -> str:
    """HMAC-SHA256 in hex, apart from the package's own."""
    return hmac.new(secret, message.encode(), hashlib.sha256).hexdigest()


def accepts_job(job_input: object, *, by: Verifier | None = None, job_id: str | None = "job-1") -> bool:
    """Whether the job is accepted; any answer but the one refusal is an error."""
    return accepts(lambda: (by or verifier()).verify_job(job_input, job_id=job_id))


def accepts_item(auth: object, item: Signable, *, by: Verifier | None = None) -> bool:
    """Whether the item is accepted; any answer but the one refusal is an error."""
    return accepts(lambda: (by or verifier()).verify_item(auth, item))


def accepts(verify: Callable[[], None]) -> bool:
    """Whether `verify` returns rather than raises the one refusal."""
    try:
        verify()
    except AuthFailed as refusal:
        if str(refusal) != REFUSAL:
            raise
        return False
    return True


def with_auth(**changes) -> dict:
    """A signed job some fields of whose auth were changed afterwards."""
    job = signed()
    return {**job, "auth": {**job["auth"], **changes}}


def flipped(sig: str, place: int) -> str:
    """The hex with the lowest bit of one digit turned."""
    return sig[:place] + format(int(sig[place], 16) ^ 1, "x") + sig[place + 1 :]


def v1(url: str = URL, *, ts: object = NOW, key: Key = NEW) -> dict:
    """The v1 signature of an image URL."""
    return {"ts": ts, "sig": mac(key.secret, f"{url}|{ts}")}
