"""The page at `/` in Chromium: what is compared and shown, and how it waits. `make page-test` runs this."""

from __future__ import annotations

import io
import time

import pytest
from PIL import Image

from tests.serve.http.browser import RIGHT, SCENES, TEXTS, Tab, best, pictures
from tests.serve.http.process import OPEN, ROOT, serving


pytestmark = pytest.mark.page

SCREENSHOT = ROOT / "build" / "page.png"  # docs/page.png is one of these
MAX_SCREENSHOT_BYTES = 200_000


@pytest.fixture
def tab(browser, service):
    """Return the page of the open service; in the end nothing was complained of, or left its origin."""
    tab = Tab(browser, service.url)
    tab.wait_ready()
    yield tab
    assert tab.faults == []
    assert {request.url.split("/")[2] for request in tab.requests if request.url.startswith("http")} == {
        service.url.removeprefix("http://")
    }
    tab.page.context.close()


class TestComparing:
    def test_dropped_pictures_are_ranked_for_each_text(self, tab):
        """The right picture stands first, the values fall, and all went in one request."""
        tab.drop(*pictures())
        tab.type_texts(*TEXTS)
        tab.compare()

        assert best(tab) == RIGHT
        for ranked in tab.rankings().values():
            values = [value for _, value in ranked]
            assert len(values) == len(SCENES)
            assert values == sorted(values, reverse=True)
        assert [len(body["items"]) for body in tab.bodies()] == [6]

    def test_bars_stand_for_values(self, tab):
        """A bar reaches from zero to its cosine, by one scale for all; negative ones to the left."""
        tab.drop(*pictures())
        tab.type_texts(*TEXTS)
        tab.compare()
        bars = tab.page.evaluate(
            """() => [...document.querySelectorAll(".bar i")].map((bar) => {
                const [box, track] = [bar.getBoundingClientRect(), bar.parentNode.getBoundingClientRect()];
                return [(box.left - track.left) / track.width, (box.right - track.left) / track.width];
            })"""
        )
        values = [value for ranked in tab.rankings().values() for _, value in ranked]
        low, high = min(0, *values), max(0, *values)

        for (left, right), value in zip(bars, values, strict=True):
            ends = sorted((0.0, value))
            assert (left, right) == pytest.approx([(end - low) / (high - low) for end in ends], abs=0.01)

    def test_an_example_takes_one_click(self, tab):
        """It draws its pictures, finds the right one for each text, and tells fingerprint and times."""
        tab.page.click("#example")
        tab.page.wait_for_selector("#stop", state="hidden")
        tab.page.wait_for_selector(".rank.best")

        assert best(tab) == {
            "a red circle": "red circle",
            "a blue square": "blue square",
            "a yellow star on navy": "yellow star",
            "a green triangle": "green triangle",
            "something orange": "orange ring",
            "two purple hearts": "two purple hearts",
        }
        assert "demo / drawings" in tab.page.inner_text("#status")
        assert "21139c19733c0c1a" in tab.page.inner_text("#status")
        assert "12 items in 1 request" in tab.page.inner_text("#told")
        keep_screenshot(tab)

    def test_only_what_is_new_is_sent(self, tab):
        """A text that is added goes alone; one that is taken out and a picture removed go at once."""
        tab.drop(*pictures())
        tab.type_texts(*TEXTS[:2])
        tab.compare()
        tab.type_texts(TEXTS[2])
        tab.compare()
        tab.page.get_by_role("button", name=f"Remove {TEXTS[0]}.png").click()

        assert tab.bodies()[1]["items"] == [{"text": TEXTS[2]}]
        assert best(tab)[TEXTS[2]] == RIGHT[TEXTS[2]]
        assert len(tab.rankings()[TEXTS[2]]) == 2

    def test_errors_stand_in_their_places(self, tab):
        """A file that is no picture and a text that is too long say so themselves; the others are ranked."""
        name = "<img src=x onerror=alert(1)>"
        tab.drop(*pictures(), (name, b"no picture"))
        tab.type_texts(*TEXTS, "a" * 100_001)
        tab.compare()
        tile = tab.page.locator(".tile.failed")

        assert tile.locator(".name").inner_text() == name
        assert tile.locator(".error").inner_text() == "DECODE_ERROR image is not a JPEG, PNG, WebP or GIF"
        assert "INVALID_INPUT text:" in tab.page.locator("article .error").inner_text()
        assert "2 failed" in tab.page.inner_text("#told")
        assert best(tab) == RIGHT

    def test_by_keyboard_and_paste(self, tab):
        """A pasted picture and Ctrl+Enter do without a mouse."""
        (name, data) = pictures()[0]
        tab.page.evaluate(
            """([name, bytes]) => {
                const clipboardData = new DataTransfer();
                clipboardData.items.add(new File([new Uint8Array(bytes)], name));
                document.dispatchEvent(new ClipboardEvent("paste", { clipboardData }));
            }""",
            [name, list(data)],
        )
        tab.page.get_by_label("Texts, one in each line").press_sequentially(TEXTS[0])
        tab.page.keyboard.press("Control+Enter")
        tab.page.wait_for_selector(".rank.best")

        assert best(tab) == {TEXTS[0]: name}

    def test_on_a_phone(self, browser, service):
        """Nothing is wider than the screen."""
        tab = Tab(browser, service.url, viewport={"width": 360, "height": 740}, color_scheme="dark")
        tab.wait_ready()
        tab.page.click("#example")
        tab.page.wait_for_selector(".rank.best")

        assert tab.page.evaluate("document.documentElement.scrollWidth") == 360
        tab.page.context.close()


def keep_screenshot(tab):
    """Write the README's picture of the page."""
    tab.page.mouse.move(0, 0)
    tab.page.evaluate("document.activeElement.blur()")
    tab.page.set_viewport_size({"width": 1100, "height": 900})
    shot = Image.open(io.BytesIO(tab.page.screenshot(full_page=True))).convert("RGB")
    SCREENSHOT.parent.mkdir(exist_ok=True)
    shot.quantize(128, dither=Image.Dither.NONE).save(SCREENSHOT, optimize=True)
    assert SCREENSHOT.stat().st_size < MAX_SCREENSHOT_BYTES


class TestWaiting:
    def test_while_the_model_loads(self, browser):
        """The page says that the model is loading, and is ready by itself when the worker is."""
        with serving(OPEN, ready=False) as service:
            tab = Tab(browser, service.url)
            tab.page.wait_for_selector("#status.loading")
            assert tab.page.is_disabled("#compare")
            tab.wait_ready()
            assert tab.page.is_enabled("#compare")
            assert tab.faults == []
            tab.page.context.close()

    def test_a_full_worker_is_asked_again(self, browser, service):
        """After 429 and 503 it waits as long as it is told, says so, and then has its answer."""
        tab = Tab(browser, service.url)
        tab.wait_ready()
        refusals = [(429, "128 requests are running already"), (503, "the service is stopping")]
        times = answer_first(tab, refusals)
        tab.type_texts(TEXTS[0])
        tab.page.click("#compare")

        tab.page.wait_for_selector("text=128 requests are running already. Trying again in")
        tab.page.wait_for_selector("text=the service is stopping. Trying again in")
        tab.page.wait_for_selector("text=1 item in 1 request")
        assert times[1] - times[0] >= 0.95 and times[2] - times[1] >= 1.95
        tab.page.context.close()

    def test_waiting_can_be_stopped(self, browser, service):
        """Stop ends a wait, and no more is sent."""
        tab = Tab(browser, service.url)
        tab.wait_ready()
        times = answer_first(tab, [(429, "full")] * 9)
        tab.type_texts(TEXTS[0])
        tab.page.click("#compare")
        tab.page.wait_for_selector("text=Trying again in")
        tab.page.click("#stop")
        tab.page.wait_for_selector("text=Stopped.")
        tab.page.wait_for_timeout(1500)

        assert len(times) == 1
        tab.page.context.close()

    def test_vectors_of_two_models_are_not_compared(self, browser, service):
        """When another model answers than before, the page says so and forgets what it had."""
        tab = Tab(browser, service.url)
        tab.wait_ready()
        tab.type_texts(TEXTS[0])
        tab.compare()

        def other_model(route):
            answer = route.fetch()
            route.fulfill(response=answer, json={**answer.json(), "fingerprint": "another"})

        tab.page.route("**/v1/embed/*", other_model)
        tab.drop(*pictures())
        tab.compare()
        assert "Another model answers" in tab.page.inner_text("#fault")
        assert tab.rankings() == {}
        tab.compare()
        assert best(tab) == {TEXTS[0]: RIGHT[TEXTS[0]]}
        tab.page.context.close()


def answer_first(tab, refusals):
    """Answer the first requests with *refusals*; return a list that will hold when each came, in seconds."""
    times, left = [], list(refusals)

    def answer(route):
        times.append(time.monotonic())
        if not left:
            return route.continue_()
        status, message = left.pop(0)
        error = {"code": "OVERLOADED", "message": message, "retryable": True, "request_id": None}
        return route.fulfill(status=status, json={"error": error}, headers={"Retry-After": "1"})

    tab.page.route("**/v1/embed/*", answer)
    return times
