"""The page at `/` in Chromium: what it shows, what it sends, what it keeps. `make page-test` runs this."""

from __future__ import annotations

import io
import json
import time

import pytest
from PIL import Image

from scripts.demo_model.draw import Scene, draw
from tests.serve.http.browser import Tab, chromium
from tests.serve.http.process import OPEN, ROOT, serving


pytestmark = pytest.mark.page

SCREENSHOT = ROOT / "docs" / "page.png"
MAX_SCREENSHOT_BYTES = 200_000
VECTORS = ROOT / "tests" / "contract" / "signature_vectors.json"
SCENES = [("red", "circle", "white"), ("blue", "square", "grey"), ("yellow", "star", "navy")]
TEXTS = [f"a {colour} {shape}" for colour, shape, _ in SCENES]
SECRET, TOKEN = "a secret that is made up for this test", "a-token-that-is-made-up-for-this-test"
GUARDED = {
    "ALLOW_DEMO_MODEL": "1",
    "EMBEDDING_HMAC_SECRET": f"2026:{SECRET}",
    "WORKER_TOKEN": TOKEN,
    "MAX_BATCH_SIZE": "4",
    "MAX_REQUEST_SIZE_BYTES": "40000",
}
INSECURE = "http://worker.test"  # a name that is not localhost, which the browser looks up as 127.0.0.1


@pytest.fixture(scope="module")
def browser():
    """Return Chromium."""
    with chromium("--host-resolver-rules=MAP worker.test 127.0.0.1") as browser:
        yield browser


@pytest.fixture
def tab(browser, service):
    """Return the page of the open service; at the end nothing was complained of, and nothing left its origin."""
    tab = Tab(browser, service.url)
    tab.wait_ready()
    yield tab
    assert tab.faults == []
    assert {request.url.split("/")[2] for request in tab.requests if request.url.startswith("http")} == {
        service.url.removeprefix("http://")
    }
    tab.page.context.close()


@pytest.fixture(scope="module")
def guarded():
    """Return a service that asks for a signature or a token, and takes little at once."""
    with serving(GUARDED) as service:
        yield service


@pytest.fixture
def locked(browser, guarded):
    """Return its page, with the pictures and texts in it."""
    tab = Tab(browser, guarded.url)
    tab.wait_ready()
    tab.choose(*pictures())
    tab.type_texts(*TEXTS)
    yield tab
    tab.page.context.close()


def pictures():
    """Return the name and the PNG of a drawing for each of the texts."""
    drawn = []
    for scene, text in zip(SCENES, TEXTS, strict=True):
        data = io.BytesIO()
        draw(Scene(*scene), (200, 160)).save(data, "PNG")
        drawn.append((f"{text}.png", data.getvalue()))
    return drawn


def best(tab):
    """Return the name of the picture that stands first for each text."""
    return {text: ranked[0][0] for text, ranked in tab.rankings().items() if ranked}


RIGHT = {text: f"{text}.png" for text in TEXTS}


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
        """It draws its pictures, finds the right one for each text, and tells model, fingerprint and times."""
        tab.page.click("#example")
        tab.page.wait_for_selector("#stop", state="hidden")
        tab.page.wait_for_selector(".rank.best")

        assert best(tab) == {
            "a red circle": "red circle",
            "a blue square": "blue square",
            "a yellow star on a navy background": "yellow star",
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
        assert [name for name, _ in tab.rankings()[TEXTS[2]]][0] == RIGHT[TEXTS[2]]
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


class TestAccess:
    def test_nothing_is_sent_without_a_secret(self, locked):
        """The page asks for one first."""
        locked.page.click("#compare")

        assert "type the secret or token" in locked.page.inner_text("#fault")
        assert locked.bodies() == []

    def test_a_secret_signs_and_stays(self, locked):
        """Each request is signed under its key, and the secret is in none, nor in the browser's stores."""
        locked.page.fill("#credential", f"2026:{SECRET}")
        locked.page.keyboard.press("Enter")
        locked.page.wait_for_selector("text=signed with the key “2026”")
        locked.compare()

        assert best(locked) == RIGHT
        auths = [body["auth"] for body in locked.bodies()]
        assert {(auth["v"], auth["kid"]) for auth in auths} == {(3, "2026")}
        assert len({auth["nonce"] for auth in auths}) == len(auths) == 2
        assert all("authorization" not in request.headers for request in locked.requests)
        assert not any(SECRET in (request.post_data or "") for request in locked.requests)
        assert kept(locked) == ["", 0, 0, ""]
        assert locked.faults == []

    def test_a_wrong_secret_is_told(self, locked):
        """The worker's refusal is shown with what to look at; after the right one it works."""
        locked.page.fill("#credential", "x" * 31)
        locked.page.click("#use")
        assert "at least 32 bytes" in locked.page.inner_text("#fault")
        locked.page.fill("#credential", "2026:" + "x" * 32)
        locked.page.click("#use")
        locked.compare()
        assert "AUTH_FAILED" in locked.page.inner_text("#fault")
        assert "Is it the right secret" in locked.page.inner_text("#fault")
        locked.page.click("#forget")
        locked.page.fill("#credential", f"2026:{SECRET}")
        locked.page.click("#use")
        locked.compare()

        assert best(locked) == RIGHT

    def test_a_token_is_sent_along(self, locked):
        """The token goes as a bearer, with no signature, and is kept nowhere else."""
        locked.page.check("[value=bearer]")
        locked.page.fill("#credential", TOKEN)
        locked.page.click("#use")
        locked.compare()

        assert best(locked) == RIGHT
        sent = [request for request in locked.requests if request.method == "POST"]
        assert {request.headers["authorization"] for request in sent} == {f"Bearer {TOKEN}"}
        assert all("auth" not in body for body in locked.bodies())
        assert kept(locked) == ["", 0, 0, ""]

    def test_over_plain_http(self, browser, guarded):
        """Where the browser has no cryptography for pages, the page says what to do; a token is warned of."""
        tab = Tab(browser, guarded.url.replace("http://127.0.0.1", INSECURE))
        tab.wait_ready()

        assert "do not let pages sign" in tab.page.inner_text("#access-note")
        assert tab.page.is_disabled("#credential")
        tab.page.check("[value=bearer]")
        assert "could read the token" in tab.page.inner_text("#access-note")
        assert tab.page.is_enabled("#credential")
        tab.page.context.close()

    def test_requests_keep_to_the_limits(self, locked):
        """Requests have no more items and bytes than the worker takes; what fits none says so in its place."""
        locked.page.check("[value=bearer]")
        locked.page.fill("#credential", TOKEN)
        locked.page.click("#use")
        name, data = pictures()[0]
        locked.choose((f"large {name}", data + bytes(30_000)), *([(name, data + bytes(14_000))] * 3))
        locked.compare()

        assert locked.page.locator(".tile.failed .error").inner_text().startswith("TOO_LARGE")
        assert sum(len(body["items"]) for body in locked.bodies()) == 9
        assert max(len(body["items"]) for body in locked.bodies()) <= 4
        assert max(len(json.dumps(body)) for body in locked.bodies()) <= 40_000

    def test_vectors_of_the_signature(self, browser, guarded):
        """The page's canonical form and signatures are the published ones."""
        vectors = json.loads(VECTORS.read_text(encoding="utf-8"))
        tab = Tab(browser, guarded.url)
        for vector in vectors["canonical"]:
            assert tab.page.evaluate("([value]) => canonical(value)", [vector["value"]]) == vector["json"]
        for vector in vectors["v3"]:
            auth = vector["input"].pop("auth")
            typed = f"{auth['kid']}:{vectors['secrets'][auth['kid']]}"
            sent = tab.page.evaluate(
                "async ([input, typed, iat, exp, nonce]) => signed(input, await keyFrom(typed), iat, nonce, exp)",
                [vector["input"], typed, auth["iat"], auth["exp"], auth["nonce"]],
            )
            assert sent["auth"] == auth
        tab.page.context.close()


def kept(tab):
    """Return the field, how many entries both stores have, and the cookies."""
    script = '[$("credential").value, localStorage.length, sessionStorage.length, document.cookie]'
    return tab.page.evaluate(script)


class TestPolicy:
    @pytest.mark.parametrize(
        ("attempt", "directive"),
        [
            ("fetch(other).catch(() => {})", "connect-src"),
            ("new Image().src = other", "img-src"),
            (
                "document.body.append(Object.assign(document.createElement('iframe'), {src: other}))",
                "frame-src",
            ),
            ("try { document.body.setAttribute('onclick', 'x') } catch {}", "require-trusted-types-for"),
            ("try { document.body.innerHTML = '<b>x</b>' } catch {}", "require-trusted-types-for"),
        ],
    )
    def test_the_browser_keeps_it(self, browser, service, guarded, attempt, directive):
        """What a mistake in the page could let a stranger try, the browser refuses and names the directive."""
        tab = Tab(browser, service.url)
        refused = tab.page.evaluate(
            f"""(other) => new Promise((resolve) => {{
                document.addEventListener("securitypolicyviolation", (event) => resolve(event.violatedDirective));
                {attempt};
            }})""",
            guarded.url,
        )

        assert refused == directive
        assert not any(request.url.startswith(guarded.url) and request.response() for request in tab.requests)
        tab.page.context.close()
