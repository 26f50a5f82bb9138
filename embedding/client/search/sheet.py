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

from embedding.client.inputs import is_web
from embedding.client.search.found import plain


if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedding.client.search.found import Found, Result
    from embedding.client.search.queries import Query

STYLE: Final = """
:root { color-scheme: light dark; --line: light-dark(#ccc, #444); --quiet: light-dark(#555, #aaa);
        --mat: light-dark(#eee, #2a2a2a); }
body { font: 16px/1.4 system-ui, sans-serif; margin: clamp(1rem, 3vw, 1.5rem); background: Canvas;
       color: CanvasText; overflow-wrap: anywhere; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
nav ul { padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: .3rem 1rem; }
ol { padding: 0; list-style: none; display: grid; gap: clamp(.75rem, 2vw, 1rem);
     grid-template-columns: repeat(auto-fill, minmax(clamp(8.5rem, 28vw, 12rem), 1fr)); }
ol li { border: 1px solid var(--line); border-radius: .4rem; padding: .5rem; }
:focus-visible { outline: 3px solid Highlight; outline-offset: 2px; }
img { display: block; max-width: 100%; max-height: 14rem; box-sizing: border-box; }
section > img { border: 1px solid var(--line); border-radius: .2rem; }
li img { width: 100%; height: clamp(8rem, 28vw, 11rem); object-fit: scale-down; margin-bottom: .4rem;
         background: var(--mat); border-radius: .2rem; }
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
<header><h1 dir="auto"{label}>{title}</h1><p class="told">{told}</p>{nav}</header>
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
    is_one = len(names) == 1
    links = "".join(f'<li><a href="#query{i}" dir="auto">{name}</a></li>' for i, name in enumerate(names))
    skipped = f"; {found.skipped:,} without direction are left out" if found.skipped else ""
    origin = f"model {found.origin.model}, fingerprint {found.origin.fingerprint}"
    return PAGE.format(
        policy=escape(_policy(allow_remote=allow_remote)),
        title=names[0] if is_one else f"{len(names)} queries",
        label=' id="query0"' if is_one else "",
        style=STYLE,
        told=escape(plain(f"{found.rows:,} vectors{skipped}; {origin}")),
        nav=f'<nav aria-label="Queries"><ul>{links}</ul></nav>' if not is_one else "",
        sections="\n".join(
            shown.section(place, query, results, is_headed=not is_one)
            for place, (query, results) in enumerate(found.results)
        ),
    )


class _Shown:
    """How ids are shown: as a picture, a link or a text."""

    def __init__(self, thumbnails: Mapping[str, str], *, allow_remote: bool) -> None:
        self._thumbnails = thumbnails
        self._allow_remote = allow_remote

    def section(self, place: int, query: Query, results: tuple[Result, ...], *, is_headed: bool) -> str:
        """Return the section of one query, with the picture that was looked for and maybe a heading."""
        asked = self._picture(query.value) if query.kind == "image" else ""
        cards = "\n".join(self._card(result) for result in results)
        heading = f'<h2 id="query{place}" dir="auto">{_name(query)}</h2>' if is_headed else ""
        return f'<section aria-labelledby="query{place}">{heading}{asked}\n<ol>\n{cards}\n</ol></section>'

    def _card(self, result: Result) -> str:
        told = f'<span class="told">{result.rank} · cosine {result.cosine:.4f}</span>'
        picture = self._picture(result.id)
        name = escape(plain(result.id)).replace("/", "/<wbr>")  # a path breaks between its folders
        if is_web(result.id):
            name = f'<a href="{escape(result.id)}" rel="noreferrer noopener">{name}</a>'
            return f'<li>{picture}{told}<div dir="auto">{name}</div></li>'
        kind = "told" if picture else "text"
        return f'<li tabindex="0">{picture}{told}<div class="{kind}" dir="auto">{name}</div></li>'

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
