"""A contact sheet: one HTML file that shows what was found, and needs nothing beside itself.

Ids and queries are strangers' words. They are escaped wherever they stand, only http and https become links,
and the policy in the file's head lets a browser load nothing and run nothing: no script, no font, no frame;
pictures are inlined, and those behind URLs load only where the user asked for them.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import TYPE_CHECKING, Final

from embedding.client.search.found import plain
from embedding.client.search.pictures import is_web


if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedding.client.search.found import Found, Result
    from embedding.client.search.queries import Query

STYLE: Final = """
:root { color-scheme: light dark; --line: light-dark(#ccc, #444); --quiet: light-dark(#555, #aaa); }
body { font: 16px/1.4 system-ui, sans-serif; margin: 1.5rem; background: Canvas; color: CanvasText; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
nav ul { padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: .3rem 1rem; }
ol { padding: 0; list-style: none; display: grid; gap: 1rem;
     grid-template-columns: repeat(auto-fill, minmax(12rem, 1fr)); }
ol li { border: 1px solid var(--line); border-radius: .4rem; padding: .5rem; overflow-wrap: anywhere; }
:focus-visible { outline: 3px solid Highlight; outline-offset: 2px; }
img { display: block; max-width: 100%; max-height: 14rem; margin: 0 auto .4rem; }
.told { color: var(--quiet); font-size: .85rem; } .text { font-size: 1.05rem; margin: .5rem 0; }
"""
PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{title}</h1><p class="told">{told}</p>{nav}</header>
<main>
{sections}
</main>
</body>
</html>
"""


def sheet(found: Found, thumbnails: Mapping[str, str], *, allow_remote: bool) -> str:
    """Return the page that shows *found*, with a data URI in *thumbnails* for each id that has a picture.

    *allow_remote*: pictures behind URLs are loaded by whoever opens the page, whose address their servers
    then see.
    """
    shown = _Shown(thumbnails, allow_remote=allow_remote)
    names = [_name(query) for query, _ in found.results]
    links = "".join(f'<li><a href="#query{i}">{name}</a></li>' for i, name in enumerate(names))
    skipped = f"; {found.skipped} have no direction and were left out" if found.skipped else ""
    origin = f"model {found.origin.model}, fingerprint {found.origin.fingerprint}"
    return PAGE.format(
        policy=escape(_policy(allow_remote=allow_remote)),
        title=names[0] if len(names) == 1 else f"{len(names)} queries",
        style=STYLE,
        told=escape(plain(f"{found.rows} vectors{skipped}; {origin}")),
        nav=f'<nav aria-label="Queries"><ul>{links}</ul></nav>' if len(names) > 1 else "",
        sections="\n".join(
            shown.section(place, query, results) for place, (query, results) in enumerate(found.results)
        ),
    )


class _Shown:
    """How ids are shown: as a picture, a link or a text."""

    def __init__(self, thumbnails: Mapping[str, str], *, allow_remote: bool) -> None:
        self._thumbnails = thumbnails
        self._allow_remote = allow_remote

    def section(self, place: int, query: Query, results: tuple[Result, ...]) -> str:
        """Return the section of one query, with the picture that was looked for."""
        asked = self._picture(query.value) if query.kind == "image" else ""
        cards = "\n".join(self._card(result) for result in results)
        heading = f'<h2 id="query{place}">{_name(query)}</h2>'
        return f'<section aria-labelledby="query{place}">{heading}{asked}\n<ol>\n{cards}\n</ol></section>'

    def _card(self, result: Result) -> str:
        told = f'<span class="told">{result.rank} · cosine {result.cosine:.4f}</span>'
        picture, name = self._picture(result.id), escape(plain(result.id))
        if is_web(result.id):
            name = f'<a href="{escape(result.id)}" rel="noreferrer noopener">{name}</a>'
            return f"<li>{picture}{told}<div>{name}</div></li>"
        kind = "told" if picture else "text"
        return f'<li tabindex="0">{picture}{told}<div class="{kind}">{name}</div></li>'

    def _picture(self, name: str) -> str:
        source = self._thumbnails.get(name)
        if source is None and self._allow_remote and is_web(name):
            source = name
        return "" if source is None else f'<img src="{escape(source)}" alt="" loading="lazy">'


def _name(query: Query) -> str:
    return escape(plain(query.value if query.kind == "text" else f"like {query.value}"))


def _policy(*, allow_remote: bool) -> str:
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode("ascii")
    pictures = "data: https: http:" if allow_remote else "data:"
    return (
        f"default-src 'none'; img-src {pictures}; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    )
