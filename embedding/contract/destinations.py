"""Where a token or an API key may travel: what sees it on the way can use it as its owner does.

That is https, or plain http that does not leave this machine. The client and `python -m deploy` ask here.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def may_carry_credentials(url: str) -> bool:
    """Return whether *url* is https, or http to localhost, 127.0.0.0/8 or ::1."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    if not host:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
