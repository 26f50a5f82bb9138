"""What a caller gives to reach a worker and to be embedded, checked before anything is sent.

Messages name the argument and never quote it: it may be a key in the wrong place.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from embedding.contract.keys import Keyring


if TYPE_CHECKING:
    from embedding.contract.keys import Key

ENDPOINT_ID: Final = re.compile(r"[A-Za-z0-9_-]+")
CREDENTIAL: Final = re.compile(r"[!-~]+")


def endpoint(endpoint_id: str) -> str:
    """Return *endpoint_id*. Raises ValueError if it is a URL or else no id."""
    if not ENDPOINT_ID.fullmatch(endpoint_id):
        raise ValueError("endpoint_id must be the endpoint's id alone, letters and digits, not its URL")
    return endpoint_id


def require_many(sources: Any) -> None:
    """Raise TypeError for what is one image or text: a lone array would be taken for a list of its rows."""
    is_one_array = hasattr(sources, "dtype") and getattr(sources, "ndim", 0) in (2, 3)
    if isinstance(sources, str | bytes | bytearray) or is_one_array or not hasattr(sources, "__iter__"):
        raise TypeError("a list is needed; for one image or text there are embed_image and embed_text")


def signing_key(secret: str | None) -> Key | None:
    """Return the newest key of *secret*, `EMBEDDING_HMAC_SECRET` as a worker reads it. Raises ValueError."""
    return None if secret is None else Keyring.parse(secret).newest


def credential(value: str, name: str) -> str:
    """Return *value* as a header can carry it, without space around it. Raises ValueError."""
    bare = value.strip()
    if not CREDENTIAL.fullmatch(bare):
        raise ValueError(f"{name} must be printable ASCII without spaces, and not empty")
    return bare


def web_url(url: str, name: str) -> str:
    """Return *url* without a slash at its end. Raises ValueError if it is not one of http or https."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{name} must be an address that begins with https:// or http://")
    return url.rstrip("/")


def hint_for(*, secret: str | None, token: str | None = None) -> str:
    """Return what to tell a caller whom a worker does not let in."""
    if token is not None:
        return "is this token one of the service's WORKER_TOKEN?"
    if secret is None:
        return "give the worker's EMBEDDING_HMAC_SECRET as secret"
    return "is secret the worker's EMBEDDING_HMAC_SECRET, and is this machine's clock right?"
