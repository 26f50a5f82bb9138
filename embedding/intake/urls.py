r"""Which URLs this worker may ask for: what they must look like before anything is looked up.

Threat: a URL that two parsers read differently ("http://127.0.0.1\@example.com/"), that carries credentials,
or that speaks to another service than a web server. Each URL is parsed once, here, and only the parts
leave; whatever is odd is refused, with one message for every reason, so that answers tell nothing of the
network. Names are judged by the addresses they resolve to, never as text (see `addresses`).
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from embedding.errors import UrlRefused


if TYPE_CHECKING:
    from embedding.intake.limits import FetchLimits

REFUSAL: Final = (
    "image_url is not allowed: it must be an https URL of a public host on the standard port, in ASCII where "
    "the host is named, without user name or password"
)
DEFAULT_PORTS: Final = {"https": 443, "http": 80}

# Whitespace and control characters, which urlsplit removes without a word, and the backslash, which
# browsers take for a slash.
_AMBIGUOUS: Final = re.compile(r"[\s\x00-\x20\x7f-\x9f\\]")
_IPV6: Final = re.compile(r"[0-9a-f:.]+")
_NAME: Final = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_MAX_NAME_LENGTH: Final = 253  # RFC 1035
_ASCII: Final = string.ascii_letters + string.digits + string.punctuation


class Place(NamedTuple):
    """Where a request goes; two requests may share a connection only if these three are equal."""

    scheme: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Target:
    """One request, in parts that need no further parsing: *host* in lower case, *path* with its query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def place(self) -> Place:
        """Where the request goes."""
        return Place(self.scheme, self.host, self.port)

    @property
    def url(self) -> str:
        """The URL again, as the base of a relative redirect."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


def parse_url(url: str, limits: FetchLimits) -> Target:
    """Return the parts of *url*; raises UrlRefused unless it is one that *limits* allow."""
    if len(url) > limits.max_url_length or _AMBIGUOUS.search(url):
        raise UrlRefused(REFUSAL)
    try:
        parts = urlsplit(url)
        port = DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port
        target = Target(parts.scheme, _host(parts), port, _path(parts))
    except (KeyError, ValueError) as exc:
        # Another scheme, a port of letters, unbalanced brackets, half a surrogate pair, NFKC tricks.
        raise UrlRefused(REFUSAL) from exc
    schemes = {"https", "http"} if limits.allow_http else {"https"}
    if target.scheme not in schemes or target.port not in limits.ports or "@" in parts.netloc:
        raise UrlRefused(REFUSAL)
    if limits.allowed_domains and not _is_below(target.host, limits.allowed_domains):
        raise UrlRefused(REFUSAL)
    return target


def redirect(origin: Target, location: str, limits: FetchLimits) -> Target:
    """Return where a redirect leads; raises UrlRefused where it leads out of what is allowed.

    *location* is the header as `http.client` gives it: bytes, one to a character.
    """
    try:
        url = urljoin(origin.url, quote(location.encode("latin-1"), safe=_ASCII))
    except ValueError as exc:
        raise UrlRefused(REFUSAL) from exc
    target = parse_url(url, limits)
    if origin.scheme == "https" and target.scheme != "https":
        raise UrlRefused(REFUSAL)
    return target


def _host(parts: SplitResult) -> str:
    host = (parts.hostname or "").removesuffix(".")
    pattern = _IPV6 if "[" in parts.netloc else _NAME
    if len(host) > _MAX_NAME_LENGTH or not pattern.fullmatch(host):
        raise UrlRefused(REFUSAL)
    return host


def _path(parts: SplitResult) -> str:
    path = quote(parts.path, safe=_ASCII) or "/"
    return f"{path}?{quote(parts.query, safe=_ASCII)}" if parts.query else path


def _is_below(host: str, domains: tuple[str, ...]) -> bool:
    names = [domain.lower().strip(".") for domain in domains]
    return any(host == name or host.endswith(f".{name}") for name in names)
