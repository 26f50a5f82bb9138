"""The page that a search writes, in Chromium. `make page-test` runs this."""

from __future__ import annotations

import io

import pytest

from embedding.client.search.found import Found, Result
from embedding.client.search.pictures import thumbnail_of
from embedding.client.search.queries import Query
from embedding.client.search.sheet import sheet
from embedding.client.search.store import Origin
from tests.serve.http.browser import Tab, chromium, pictures


pytestmark = pytest.mark.page

LONG = "x" * 600
IDS = [
    f"photos/{LONG}.jpg",
    "صورة/دائرة.jpg",
    "a text",
    f"https://example.com/{LONG}",
    "<img src=x onerror=alert(1)>",
]


@pytest.fixture(scope="module")
def browser():
    """Return Chromium."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def written(tmp_path):
    """Return what writes the page of some queries, each with IDS as its results, and returns its address."""
    thumbnails = {name: thumbnail_of(io.BytesIO(pictures()[0][1])) for name in IDS[:2]}

    def write(*queries):
        results = tuple(Result(rank, 0.5, name) for rank, name in enumerate(IDS, start=1))
        found = Found(Origin("f1", "m"), 9, 1, tuple((query, results) for query in queries))
        (tmp_path / "found.html").write_text(sheet(found, thumbnails, allow_remote=False), encoding="utf-8")
        return (tmp_path / "found.html").as_uri()

    return write


@pytest.mark.parametrize("width", [320, 390, 1100])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_screen(browser, written, width, scheme):
    """Queries and ids without a space break, pictures are shown, and nothing else is asked for."""
    url = written(Query("text", LONG), Query("image", IDS[0]), Query("text", "دائرة حمراء"))
    tab = Tab(browser, url, viewport={"width": width, "height": 740}, color_scheme=scheme)
    for image in tab.page.locator("img").all():
        image.scroll_into_view_if_needed()
    tab.page.wait_for_function("[...document.images].every((image) => image.naturalWidth > 0)")

    assert tab.page.evaluate("document.documentElement.scrollWidth") == width
    assert tab.page.locator("img").count() == 7
    assert tab.faults == []
    assert {request.url.split(":")[0] for request in tab.requests} <= {"file", "data"}
    tab.page.context.close()


def test_two_stand_side_by_side_on_a_phone(browser, written):
    """Of many results two fit in a row, and their captions stand on one line."""
    tab = Tab(browser, written(Query("text", "a red circle")), viewport={"width": 360, "height": 740})
    left, right = tab.page.evaluate(
        """() => [...document.querySelectorAll("li > span")].slice(0, 2).map((told) =>
            [told.getBoundingClientRect().left, told.getBoundingClientRect().top])"""
    )

    assert left[0] < right[0]
    assert left[1] == right[1]
    assert tab.page.evaluate("getComputedStyle(document.querySelectorAll('li div')[1]).direction") == "rtl"
    tab.page.context.close()
