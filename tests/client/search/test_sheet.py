"""The page shows strangers' words and runs none of them, and asks no server that it was not told to ask."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from embedding.client.search.found import Found, Result, as_json, as_table
from embedding.client.search.queries import Query
from embedding.client.search.sheet import sheet
from embedding.client.search.store import Origin


URL = 'https://example.com/a.jpg?x=1&y="><script>alert(1)</script>'
EVIL = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    URL,
    "\x1b[31m \x9b \u202e \ud800",
    "{policy}",
]


class Elements(HTMLParser):
    """Collects every element with its attributes."""

    def __init__(self, page) -> None:
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def of(self, tag):
        """Return the attributes of each *tag*."""
        return [attributes for name, attributes in self.found if name == tag]


def page_of(ids, queries=None, *, thumbnails=None, allow_remote=False):
    """Return the page for *ids*, found by each of *queries*."""
    results = tuple(Result(rank, 0.5, name) for rank, name in enumerate(ids, start=1))
    found = Found(Origin("f1", "m"), 9, 1, tuple((q, results) for q in queries or [Query("text", "q")]))
    return sheet(found, thumbnails or {}, allow_remote=allow_remote)


@pytest.mark.parametrize("allow_remote", [False, True])
@pytest.mark.parametrize("evil", EVIL)
def test_nothing_of_an_id_or_a_query_is_markup(evil, allow_remote):
    """The elements are those of a page of harmless words."""
    page = page_of([evil], [Query("text", evil), Query("image", evil)], allow_remote=allow_remote)
    known = {"html", "head", "meta", "title", "style", "body", "header", "h1", "p", "nav", "ul", "li", "a"}
    known |= {"main", "section", "h2", "ol", "img", "span", "div", "wbr"}
    elements = Elements(page)

    assert {tag for tag, _ in elements.found} <= known
    assert not [name for _, attributes in elements.found for name in attributes if name.startswith("on")]
    assert all(re.match(r"#query\d|https://", link["href"]) for link in elements.of("a"))
    page.encode("utf-8", errors="strict")


@pytest.mark.parametrize(("allow_remote", "sources"), [(False, []), (True, [URL])])
def test_a_picture_behind_a_url(allow_remote, sources):
    """It is a link, and shown only where that is asked for."""
    elements = Elements(page_of([URL], allow_remote=allow_remote))

    assert [image["src"] for image in elements.of("img")] == sources
    assert [link["href"] for link in elements.of("a")] == [URL]


@pytest.mark.parametrize(("allow_remote", "pictures"), [(False, "data:"), (True, "data: https: http:")])
def test_policy(allow_remote, pictures):
    """Nothing is loaded or run but inlined pictures and the page's own style."""
    page = page_of(["a"], allow_remote=allow_remote)
    style = re.search("<style>(.*?)</style>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = [m["content"] for m in Elements(page).of("meta") if "http-equiv" in m]

    assert policy.split("; ") == [
        "default-src 'none'",
        f"img-src {pictures}",
        f"style-src 'sha256-{digest}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    assert "url(" not in style
    assert "@import" not in style


def test_pictures_texts_and_queries():
    """A thumbnail is shown, a text stands as it is, every card and query can be reached by keyboard."""
    queries = [Query("text", "a red circle"), Query("image", "q.jpg")]
    page = page_of(["p.jpg", "a text"], queries, thumbnails={"p.jpg": "data:x", "q.jpg": "data:q"})
    elements = Elements(page)

    assert [image["src"] for image in elements.of("img")] == ["data:x", "data:q", "data:x"]
    assert [link["href"] for link in elements.of("a")] == ["#query0", "#query1"]
    assert [card for card in elements.of("li") if card == {"tabindex": "0"}] == [{"tabindex": "0"}] * 4
    assert "9 vectors; 1 without direction are left out; model m, fingerprint f1" in page
    assert "light dark" in page


@pytest.mark.parametrize(("queries", "headings"), [(1, []), (2, [{"id": "query0"}, {"id": "query1"}])])
def test_headings(queries, headings):
    """Several queries have one each; of one alone the page's own names what was looked for."""
    elements = Elements(page_of(["a"], [Query("text", "q")] * queries))
    labels = [section["aria-labelledby"] for section in elements.of("section")]

    assert [{"id": heading["id"]} for heading in elements.of("h2")] == headings
    assert labels == [f"query{place}" for place in range(queries)]
    assert (elements.of("h1")[0].get("id") == "query0") is (queries == 1)


def test_words_of_other_scripts_and_paths():
    """What strangers wrote runs in its own direction, and a path breaks between its folders."""
    page = page_of(["a/b.jpg", "https://example.com/c.jpg"])
    elements = Elements(page)

    assert [block.get("dir") for tag in ("h1", "div") for block in elements.of(tag)] == ["auto"] * 3
    assert "a/<wbr>b.jpg</div>" in page
    assert "overflow-wrap: anywhere" in page


def test_json_of_names_that_are_not_utf8():
    """It can be written in any encoding of Unicode, and read again."""
    found = Found(Origin("f", "m"), 1, 0, ((Query("image", "\udcff"), (Result(1, 0.5, "é\udcff"),)),))
    (query,) = json.loads(as_json(found).encode())["queries"]

    assert (query["image"], query["results"][0]["id"]) == ("\udcff", "é\udcff")


def test_a_table_cannot_steer_the_terminal():
    """What is not printable stands as an escape."""
    found = Found(Origin("f", "m"), 1, 0, ((Query("text", "\x1b[2J"), (Result(1, 0.5, "a\nb\x1b[31m"),)),))

    assert as_table(found) == "\\x1b[2J\nrank  cosine  id\n   1  0.5000  a\\nb\\x1b[31m"
