"""Decide whether whoever sent a job holds a secret, and sign jobs for those who do.

HMAC-SHA256, 32 bytes in hex, over the messages of `canonical`:

    v1  {ts, sig}                         a single image_url job; kept for older callers of the queue
    v2  {ts, sig}                         one image or one text; per item in a batch
    v3  {v: 3, kid, iat, exp, nonce, sig} the whole input, batches and lists of texts included

Types and sizes are checked first, then the MAC, then the time, then the nonce.
Every key is tried and every comparison is in constant time, so neither a near miss nor an unknown kid
shows. A caller learns one message; the reason is logged at DEBUG, without what the caller sent.

v1 and v2 cover no options (normalize, encoding_format) and can be replayed inside their window.
v3 covers everything; its nonces are remembered per process, so a captured job can run once more on another
worker until it expires: that costs money, not integrity. A queue delivers a job twice when a worker dies:
the same nonce under the same job id is that, under another job id it is a replay.

Numbers: an hour covers a queue's backlog and cold starts;
65,536 nonces are 18 an accepted second for that hour, in about 30 MB.
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from embedding.contract.canonical import Signable, v1_message, v2_message, v3_message
from embedding.contract.keys import KID, Key, Keyring
from embedding.errors import AuthFailed, InvalidInput


REFUSAL: Final = "auth is missing, expired or not valid for this input"
MAX_LIFETIME_S: Final = 3600
MAX_NONCES: Final = 65_536
MAX_TIMESTAMP_S: Final = 2**53 - 1  # what JSON carries exactly

_NONCE = re.compile(r"[A-Za-z0-9_-]{16,64}")
_MAC_HEX = re.compile(r"[0-9A-Fa-f]{64}")
_log = logging.getLogger(__name__)


class Verifier:
    """Checks signatures against a keyring and a clock; safe to use from several threads.

    window_s: how far a caller's clock may be off, both ways, inclusive.
    min_version: the oldest signature version accepted, 1 to 3.
    clock: seconds since the epoch; fractions are dropped, since signatures carry whole seconds.
    max_lifetime_s: the longest exp - iat, inclusive.
    max_nonces: how many v3 nonces are remembered; the least recently used give way; 1 or more.
    """

    def __init__(
        self,
        keyring: Keyring,
        *,
        window_s: int = 120,
        min_version: int = 1,
        clock: Callable[[], float] = time.time,
        max_lifetime_s: int = MAX_LIFETIME_S,
        max_nonces: int = MAX_NONCES,
    ) -> None:
        self._keyring = keyring
        self._window_s = window_s
        self._min_version = min_version
        self._clock = clock
        self._max_lifetime_s = max_lifetime_s
        self._nonces = _NonceMemory(max_nonces)

    def verify_job(self, job_input: Mapping[str, Any], *, job_id: str | None) -> None:
        """Accept a job whose v3 `auth` covers the whole of its input; raise AuthFailed otherwise.

        job_id: the queue's id for the job; None where there is none, and then a nonce serves once.
        """
        if not isinstance(job_input, Mapping):
            raise _refused("the input is no object")
        auth = _JobAuth.read(job_input.get("auth"))
        try:
            message = v3_message(job_input, kid=auth.kid, iat=auth.iat, exp=auth.exp, nonce=auth.nonce)
        except InvalidInput as exc:
            raise _refused("the input has no canonical form") from exc
        if not self._keyring.signed(message, auth.mac, kid=auth.kid):
            raise _refused("wrong v3 signature or unknown key id")
        now = int(self._clock())
        if not (0 < auth.exp - auth.iat <= self._max_lifetime_s):
            raise _refused("lifetime out of its limits")
        if not (auth.iat <= now + self._window_s and now <= auth.exp):
            raise _refused("expired or issued in the future")
        if not self._nonces.admit(auth, job_id=job_id, now=now):
            raise _refused("nonce used by another job")

    def verify_item(self, auth: object, item: Signable) -> None:
        """Accept one image or text, alone or in a batch, signed by v1 or v2; raise AuthFailed otherwise.

        auth: the job's or the item's own `auth`, as the caller sent it.
        """
        ts, mac = _read_item_auth(auth)
        messages = []
        try:
            if self._min_version <= 1 and item.image_url is not None and not item.in_batch:
                messages.append(v1_message(item.image_url, ts=ts))
            if self._min_version <= 2:  # noqa: PLR2004  (v2)
                messages.append(v2_message(item, ts=ts))
        except InvalidInput as exc:
            raise _refused("the item cannot be signed") from exc
        matches = [self._keyring.signed(message, mac) for message in messages]
        if not any(matches):
            raise _refused("wrong v1 or v2 signature, or a version no longer accepted")
        if abs(int(self._clock()) - ts) > self._window_s:
            raise _refused("outside the time window")


def covers_job(auth: object) -> bool:
    """Return whether `auth` claims to cover a whole job (v3), so that verify_job has to judge it."""
    return isinstance(auth, Mapping) and "v" in auth


def sign_v3(
    job_input: Mapping[str, Any],
    key: Key,
    *,
    now: int | None = None,
    lifetime_s: int = MAX_LIFETIME_S,
    nonce: str | None = None,
) -> dict[str, str | int]:
    """Return the `auth` to put into `job_input`; what stands under `auth` there already is not covered.

    now: seconds since the epoch; the clock's when not given.
    lifetime_s: 1 to 3600, the time in the queue included.
    nonce: 16 to 64 of A-Z a-z 0-9 _ -, new for every job; a random one when not given.
    Raise InvalidInput when the input or an argument is out of its limits.
    """
    iat = int(time.time()) if now is None else now
    nonce = secrets.token_urlsafe(24) if nonce is None else nonce
    if not 0 < lifetime_s <= MAX_LIFETIME_S:
        raise InvalidInput(f"lifetime_s must be 1 to {MAX_LIFETIME_S}")
    if not _NONCE.fullmatch(nonce):
        raise InvalidInput("nonce must be 16 to 64 of A-Z a-z 0-9 _ -")
    exp = iat + lifetime_s
    message = v3_message(job_input, kid=key.kid, iat=iat, exp=exp, nonce=nonce)
    return {"v": 3, "kid": key.kid, "iat": iat, "exp": exp, "nonce": nonce, "sig": key.mac(message).hex()}


def sign_v2(item: Signable, key: Key, *, now: int | None = None) -> dict[str, str | int]:
    """Return the `auth` of one image or text; now: seconds since the epoch, the clock's when not given.

    Raise InvalidInput when the item cannot be signed.
    """
    ts = int(time.time()) if now is None else now
    return {"ts": ts, "sig": key.mac(v2_message(item, ts=ts)).hex()}


@dataclass(frozen=True, slots=True)
class _JobAuth:
    kid: str
    iat: int
    exp: int
    nonce: str
    mac: bytes

    @classmethod
    def read(cls, auth: object) -> _JobAuth:
        fields = _exact_fields(auth, {"v", "kid", "iat", "exp", "nonce", "sig"})
        if type(fields["v"]) is not int or fields["v"] != 3:  # noqa: PLR2004  (v3)
            raise _refused("unknown version")
        return cls(
            kid=_matching(KID, fields["kid"]),
            iat=_seconds(fields["iat"]),
            exp=_seconds(fields["exp"]),
            nonce=_matching(_NONCE, fields["nonce"]),
            mac=bytes.fromhex(_matching(_MAC_HEX, fields["sig"])),
        )


def _read_item_auth(auth: object) -> tuple[int, bytes]:
    fields = _exact_fields(auth, {"ts", "sig"})
    return _seconds(fields["ts"]), bytes.fromhex(_matching(_MAC_HEX, fields["sig"]))


def _exact_fields(auth: object, names: set[str]) -> Mapping[str, Any]:
    if not isinstance(auth, Mapping) or auth.keys() != names:
        raise _refused("missing, or not the fields of this version")
    return auth


def _seconds(value: object) -> int:
    if type(value) is not int or not 0 <= value <= MAX_TIMESTAMP_S:  # bool is an int, hence type()
        raise _refused("a time that is no whole number of seconds")
    return value


def _matching(pattern: re.Pattern[str], value: object) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise _refused("a field out of its alphabet or length")
    return value


class _NonceMemory:
    """Which job used which (kid, nonce), until it expires; at most `capacity` of them."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._uses: OrderedDict[tuple[str, str], tuple[str | None, int]] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, auth: _JobAuth, *, job_id: str | None, now: int) -> bool:
        with self._lock:
            nonce = (auth.kid, auth.nonce)
            user, exp = self._uses.get(nonce, (None, -1))
            if exp >= now and (job_id is None or job_id != user):
                return False
            self._uses[nonce] = (job_id, max(exp, auth.exp))
            self._uses.move_to_end(nonce)
            self._forget(now)
            return True

    def _forget(self, now: int) -> None:
        while len(self._uses) > self._capacity or next(iter(self._uses.values()))[1] < now:
            self._uses.popitem(last=False)


def _refused(reason: str) -> AuthFailed:
    _log.debug("signature refused: %s", reason)
    return AuthFailed(REFUSAL)
