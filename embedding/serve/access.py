"""Who may ask a worker that serves: callers who sign, over HTTP callers with a token, or everybody.

With neither a secret nor a token a worker does not start, unless the operator says that anyone may use it;
who says so with a secret set, while callers learn to sign, is told at every start. The queue carries no
tokens, so there a secret is needed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from embedding.contract.keys import Keyring
from embedding.contract.signatures import REFUSAL, Verifier
from embedding.contract.tokens import Tokens
from embedding.errors import AuthFailed, StartupError
from embedding.serve.mode import Mode


if TYPE_CHECKING:
    from collections.abc import Callable

    from embedding.settings import Settings

log = logging.getLogger(__name__)

_QUEUE: Final = ("EMBEDDING_HMAC_SECRET is", "it")


@dataclass(frozen=True, slots=True)
class Access:
    """What shows that a caller may ask; with neither *verifier* nor *tokens* nothing needs to be shown."""

    verifier: Verifier | None = None
    tokens: Tokens | None = None

    @classmethod
    def of(cls, settings: Settings, mode: Mode) -> Access:
        """Return what *settings* ask of callers in *mode*. Raises StartupError where anyone could ask."""
        secret, token = settings.hmac_secret, settings.worker_token if mode is Mode.HTTP else None
        if mode.serves and settings.allow_insecure_auth and (secret or token):
            log.warning("ALLOW_INSECURE_AUTH=1: everybody may ask, and no secret or token is looked at")
        if not mode.serves or settings.allow_insecure_auth:
            return cls()
        if secret is None and token is None:
            names, one = (
                ("EMBEDDING_HMAC_SECRET and WORKER_TOKEN are", "one") if mode is Mode.HTTP else _QUEUE
            )
            raise StartupError(
                f"{names} not set, so anyone could use this worker: "
                f"set {one}, or ALLOW_INSECURE_AUTH=1 to accept unsigned jobs"
            )
        verifier = None if secret is None else _verifier(settings, secret.get_secret_value())
        tokens = None if token is None else _parsed(Tokens.parse, token.get_secret_value())
        return cls(verifier, tokens)

    @property
    def is_open(self) -> bool:
        """Whether everybody may ask."""
        return self.verifier is None and self.tokens is None

    def ways(self) -> list[str]:
        """Return what a caller may show: bearer, signature, either of them; or none, where it is open."""
        ways = {"bearer": self.tokens, "signature": self.verifier}
        return [way for way, known in ways.items() if known is not None] or ["none"]

    def trusts(self, authorization: str) -> bool:
        """Return whether a request under the header *authorization* need not be signed.

        Raises AuthFailed for a token that is wrong, and where no signature could help.
        """
        scheme, _, token = authorization.partition(" ")
        if self.tokens is not None and scheme.lower() == "bearer":
            if self.tokens.accept(token.strip()):
                return True
            raise AuthFailed(REFUSAL)
        if self.verifier is None and not self.is_open:
            raise AuthFailed(REFUSAL)
        return self.is_open


def _verifier(settings: Settings, secret: str) -> Verifier:
    keyring = _parsed(Keyring.parse, secret)
    return Verifier(keyring, window_s=settings.auth_window_s, min_version=settings.auth_min_version)


def _parsed(parse: Callable[[str], Any], setting: str) -> Any:
    try:
        return parse(setting)
    except ValueError as fault:
        raise StartupError(str(fault)) from None
