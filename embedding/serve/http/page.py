"""The page at `/`, to try the service by hand: one file, which may run its own script and ask its own host.

It shows what strangers name (files, texts, messages) beside a token or a secret that was typed in. Should
that ever become markup, the policy lets no other script run, and nothing load from or go to another place.
Script and style are allowed by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from starlette.responses import HTMLResponse, Response


if TYPE_CHECKING:
    from collections.abc import Callable

FILE: Final = Path(__file__).with_name("page.html")
POLICY: Final = (
    "default-src 'none'; script-src {script}; style-src {style}; img-src blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def make_page(*, max_batch_size: int, max_request_bytes: int) -> Callable[[], Response]:
    """Return what answers with the page, which splits its requests by these limits."""
    html = FILE.read_text(encoding="utf-8")
    policy = POLICY.format(script=_allowed(html, "script"), style=_allowed(html, "style"))
    html = html.replace("MAX_BATCH_SIZE", str(max_batch_size), 1)
    html = html.replace("MAX_REQUEST_SIZE_BYTES", str(max_request_bytes), 1)
    return lambda: HTMLResponse(html, headers={"Content-Security-Policy": policy, **HEADERS})


def _allowed(html: str, tag: str) -> str:
    """Return the source expression that allows the one element *tag* of *html*."""
    (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
