"""What a caller gives to reach a worker and to be embedded, checked before anything is sent.

Messages name the argument and never quote it: it may be a key in the wrong place.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from embedding.contract.destinations import may_carry_credentials
from embedding.contract.keys import Keyring


if TYPE_CHECKING:
    from embedding.contract.keys import Key

ENDPOINT_ID: Final = re.compile(r"[A-Za-z0-9_-]+")
CREDENTIAL: Final = re.compile(r"[!-~]+")
USUAL_VARIABLES: Final = {
    "endpoint_id": "RUNPOD_ENDPOINT_ID",
    "api_key": "RUNPOD_API_KEY",
    "base_url": "CLIP_POD_BASE_URL",
    "token": "WORKER_TOKEN",
    "secret": "EMBEDDING_HMAC_SECRET",
}


def endpoint(endpoint_id: str, name: str = "endpoint_id") -> str:
    """Return *endpoint_id*. Raises ValueError if it is a URL or else no id, TypeError if it is no str."""
    if not ENDPOINT_ID.fullmatch(_text(endpoint_id, name)):
        raise ValueError(f"{name} must be the endpoint's id alone, letters and digits, not its URL")
    return endpoint_id


def require_many(sources: Any) -> None:
    """Raise TypeError for what is one image or text: a lone array would be taken for a list of its rows."""
    is_one_array = hasattr(sources, "dtype") and getattr(sources, "ndim", 0) in (2, 3)
    if isinstance(sources, str | bytes | bytearray) or is_one_array or not hasattr(sources, "__iter__"):
        raise TypeError("a list is needed; for one image or text there are embed_image and embed_text")


def signing_key(secret: str | None) -> Key | None:
    """Return the newest key of *secret*, `EMBEDDING_HMAC_SECRET` as a worker reads it. Raises ValueError."""
    return None if secret is None else Keyring.parse(_text(secret, "secret")).newest


def credential(value: str, name: str) -> str:
    """Return *value* as a header can carry it, without space around it. Raises ValueError or TypeError."""
    bare = _text(value, name).strip()
    if not CREDENTIAL.fullmatch(bare):
        raise ValueError(f"{name} must be printable ASCII without spaces, and not empty")
    return bare


def web_url(url: str, name: str, *, bearer: str | None) -> str:
    """Return *url* without a slash at its end; *bearer* is the token or API key that would go there.

    Raises ValueError if it is not one of http or https, or would show a credential to whoever listens;
    TypeError if it is no str. A signature is no credential: it serves for one job, and not for long.
    """
    try:
        parts = urlsplit(_text(url, name))
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        is_address = is_address and url.isprintable() and not set(url) & set(" ?#")
    except ValueError:
        is_address = False
    if not is_address:
        raise ValueError(
            f"{name} must be an address that begins with https:// or http://, as http://127.0.0.1:8000 does"
        )
    if (bearer is not None or "@" in parts.netloc) and not may_carry_credentials(url):
        raise ValueError(
            f"{name} is plain http, which shows a token or key to the network: give an https:// address, "
            "or one of this machine (localhost or 127.0.0.1), where a tunnel may begin"
        )
    return url.rstrip("/")


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        variable = USUAL_VARIABLES.get(name)
        hint = f"; it usually comes from the variable {variable}" if variable else ""
        raise TypeError(f"{name} must be a str, not {type(value).__name__}{hint}")
    return value


def hint_for(*, secret: str | None, token: str | None = None) -> str:
    """Return what to tell a caller whom a worker does not let in."""
    if token is not None:
        return "is this token one of the service's WORKER_TOKEN?"
    if secret is None:
        return "give the worker's EMBEDDING_HMAC_SECRET as secret"
    return "is secret the worker's EMBEDDING_HMAC_SECRET, and is this machine's clock right?"
