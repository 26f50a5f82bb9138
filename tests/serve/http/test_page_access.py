"""The page at `/` in Chromium: secrets, tokens, limits and its policy. `make page-test` runs this."""

from __future__ import annotations

import json

import pytest

from tests.serve.http.browser import RIGHT, TEXTS, Tab, best, pictures
from tests.serve.http.process import ROOT, serving


pytestmark = pytest.mark.page

VECTORS = ROOT / "tests" / "contract" / "signature_vectors.json"
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
        locked.page.wait_for_selector("text=The key is “2026”")
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
        """No request has more items or bytes than the worker takes; what fits none says so in its place."""
        locked.page.check("[value=bearer]")
        locked.page.fill("#credential", TOKEN)
        locked.page.click("#use")
        name, data = pictures()[0]
        locked.choose((f"large {name}", data + bytes(30_000)), *([(name, data + bytes(14_000))] * 3))
        locked.compare()

        assert locked.page.locator(".tile.failed .error").inner_text().strip().startswith("one request holds")
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
                "async ([input, typed, ...times]) => signed(input, await keyFrom(typed), ...times)",
                [vector["input"], typed, auth["iat"], auth["nonce"], auth["exp"]],
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
                "document.body.append(h('iframe', { src: other }))",
                "frame-src",
            ),
            ("try { document.body.setAttribute('onclick', 'x') } catch {}", "require-trusted-types-for"),
            ("try { document.body.innerHTML = '<b>x</b>' } catch {}", "require-trusted-types-for"),
        ],
    )
    def test_the_browser_keeps_it(self, browser, service, guarded, attempt, directive):
        """What a mistake in the page could let a stranger try, the browser refuses by this directive."""
        tab = Tab(browser, service.url)
        refused = tab.page.evaluate(
            f"""(other) => new Promise((resolve) => {{
                document.onsecuritypolicyviolation = ({{ violatedDirective }}) => resolve(violatedDirective);
                {attempt};
            }})""",
            guarded.url,
        )

        assert refused == directive
        assert not any(request.url.startswith(guarded.url) and request.response() for request in tab.requests)
        tab.page.context.close()
