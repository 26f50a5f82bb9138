"""Who may ask over HTTP: holders of a secret by any version of the signature, holders of a token, or all."""

from __future__ import annotations

import base64
import copy

import pytest

from embedding.contract.canonical import Signable
from embedding.contract.signatures import REFUSAL, sign_v2, sign_v3
from embedding.contract.tokens import Tokens
from embedding.errors import StartupError
from embedding.serve.access import Access
from embedding.serve.mode import Mode
from embedding.settings import Settings
from tests.contract.signing import NEW, NOW, OLD, mac, verifier
from tests.fakes import FakeDownloads, png
from tests.serve.http.local import local_service, post


IMAGE, BATCH, TEXT = "/v1/embed/image", "/v1/embed/image-batch", "/v1/embed/text"
URL = "https://images.example.com/cat.jpg"
TOKEN, OTHER = "t" * 32, "u" * 32
PICTURE = png()


def v1(ts=NOW, key=NEW):
    """Return a picture by URL, signed as older callers do."""
    return IMAGE, {"image_url": URL, "auth": {"ts": ts, "sig": mac(key.secret, f"{URL}|{ts}")}}


def v2(ts=NOW, key=NEW):
    """Return a text under its own signature."""
    return TEXT, {"text": "a cat", "auth": sign_v2(Signable(text="a cat"), key, now=ts)}


def v2_batch(ts=NOW, key=NEW):
    """Return a batch, each of whose items is signed."""
    items = [
        {"image_base64": base64.b64encode(PICTURE).decode()}
        | {"auth": sign_v2(Signable(image_bytes=PICTURE, in_batch=True), key, now=ts)},
        {"text": "a cat", "auth": sign_v2(Signable(text="a cat", in_batch=True), key, now=ts)},
    ]
    return BATCH, {"items": items}


def v3(ts=NOW, key=NEW, body=None, path=TEXT, lifetime_s=60):
    """Return *body*, or two texts, under one signature for all of it."""
    body = body or {"texts": ["a cat", "a dog"]}
    return path, {**body, "auth": sign_v3(body, key, now=ts, lifetime_s=lifetime_s)}


def v3_openai(ts=NOW, key=NEW):
    """Return OpenAI's form, signed as the queue's passthrough of it is."""
    body = {"input": ["a cat"]}
    signed = {"openai_route": "/v1/embeddings", "openai_input": body}
    return "/v1/embeddings", {**body, "auth": sign_v3(signed, key, now=ts)}


def signed_service(*, now=NOW, tokens=None):
    """Return a service that knows two secrets and whose clock stands still."""
    downloads = FakeDownloads({URL: PICTURE})
    return local_service(verifier=verifier(now=now), tokens=tokens, downloads=downloads)


def status(service, path, body, **headers):
    """Return the status of the answer; for a batch, 401 if an item is refused for its signature."""
    response = post(service, path, body, **headers)
    codes = {result.get("error", {}).get("code") for result in response.json().get("results", [])}
    if response.status_code == 401:
        assert response.json()["error"]["message"] == REFUSAL
        assert response.headers["www-authenticate"] == "Bearer"
    return 401 if "AUTH_FAILED" in codes else response.status_code


@pytest.mark.parametrize("make", [v1, v2, v2_batch, v3, v3_openai])
class TestEveryVersion:
    @pytest.mark.parametrize("key", [OLD, NEW])
    def test_is_accepted(self, make, key):
        """What a holder of any active secret signs is answered."""
        assert status(signed_service(), *make(key=key)) == 200

    def test_unsigned_is_refused(self, make):
        """The same without `auth` is 401."""
        path, body = make()
        body.pop("auth", None)
        for item in body.get("items", []):
            item.pop("auth")

        assert status(signed_service(), path, body) == 401

    def test_tampered_is_refused(self, make):
        """The same with another content, or one digit of its signature changed, is 401."""
        path, body = make()
        other = copy.deepcopy(body)
        for each in (other, *other.get("items", [])):
            if "auth" in each:
                sig = each["auth"]["sig"]
                each["auth"]["sig"] = sig[:-1] + ("0" if sig[-1] != "0" else "1")
        assert status(signed_service(), path, other) == 401
        assert status(signed_service(), path, _with_other_content(body)) == 401

    @pytest.mark.parametrize(("late_s", "good"), [(119, True), (120, True), (121, False)])
    def test_caller_whose_clock_is_ahead(self, make, late_s, good):
        """A clock may be two minutes ahead, inclusive."""
        assert (status(signed_service(now=NOW - late_s), *make()) == 200) is good

    @pytest.mark.parametrize(("late_s", "good"), [(119, True), (120, True), (121, False)])
    def test_time_that_is_left(self, make, late_s, good):
        """v1 and v2 are good for two minutes, inclusive; v3 until it says that it ends."""
        path, body = make()
        if make is v3:
            path, body = make(lifetime_s=120)
        elif make is v3_openai:
            late_s += 3600 - 120

        assert (status(signed_service(now=NOW + late_s), path, body) == 200) is good


def _with_other_content(body):
    body = copy.deepcopy(body)
    swap = {URL: f"{URL}?", "a cat": "a dog", base64.b64encode(PICTURE).decode(): _OTHER}
    for each in (body, *body.get("items", [])):
        for name in ("image_url", "image_base64", "text"):
            if name in each:
                each[name] = swap[each[name]]
        for name in ("texts", "input"):
            if name in each:
                each[name] = [*each[name], "one more"]
    return body


_OTHER = base64.b64encode(png((0, 0, 255))).decode()


def test_a_nonce_serves_once():
    """There is no redelivery over HTTP: the same signed request a second time is a replay."""
    service, (path, body) = signed_service(), v3()

    assert [status(service, path, body) for _ in range(2)] == [200, 401]


def test_a_signature_is_not_good_for_another_route():
    """A picture's signature names its route: one for a single picture is refused in a batch."""
    _, batch = v2_batch()
    picture = batch["items"][0]

    assert status(signed_service(), IMAGE, picture) == 401
    assert status(signed_service(), BATCH, {"items": [picture]}) == 200


class TestTokens:
    @pytest.mark.parametrize(
        ("header", "expected"),
        [
            (f"Bearer {TOKEN}", 200),
            (f"bearer  {OTHER} ", 200),
            (f"Bearer {TOKEN[:-1]}", 401),
            (f"Bearer {TOKEN}x", 401),
            ("Bearer", 401),
            (f"Basic {TOKEN}", 401),
            (TOKEN, 401),
        ],
    )
    @pytest.mark.parametrize("signs", [True, False])
    def test_bearer(self, header, expected, signs):
        """Each token that is set is good instead of a signature, and nothing else is."""
        tokens = Tokens.parse(f"{TOKEN},{OTHER}")
        service = local_service(verifier=verifier() if signs else None, tokens=tokens)

        assert status(service, TEXT, {"text": "a"}, authorization=header) == expected
        assert status(service, "/v1/embeddings", {"input": "a"}, authorization=header) == expected

    def test_wrong_token_beside_a_signature(self):
        """A token that is wrong is refused, however well the request is signed; without one it is good."""
        service = signed_service(tokens=Tokens.parse(TOKEN))

        assert status(service, *v3(), authorization=f"Bearer {OTHER}") == 401
        assert status(service, *v3()) == 200

    def test_token_where_none_is_known(self):
        """OpenAI's clients always send one: where no token is set it opens nothing and breaks nothing."""
        assert status(signed_service(), *v3(), authorization="Bearer x") == 200
        assert status(signed_service(), TEXT, {"text": "a"}, authorization="Bearer x") == 401
        assert status(local_service(), TEXT, {"text": "a"}, authorization="Bearer x") == 200


class TestFailClosed:
    @pytest.mark.parametrize("env", [{"WORKER_TOKEN": TOKEN}, {"ALLOW_INSECURE_AUTH": "1"}])
    def test_service_without_a_secret(self, env):
        """It starts where tokens are set, or where it is said that anyone may ask."""
        access = Access.of(Settings.from_env(env), Mode.HTTP)

        assert access.verifier is None
        assert access.is_open is ("ALLOW_INSECURE_AUTH" in env)

    def test_neither_secret_nor_token(self):
        """Otherwise it does not start."""
        with pytest.raises(StartupError, match="EMBEDDING_HMAC_SECRET and WORKER_TOKEN are not set"):
            Access.of(Settings.from_env({}), Mode.HTTP)

    def test_token_opens_no_queue(self):
        """The queue carries no bearer tokens: there a secret is needed still."""
        with pytest.raises(StartupError, match="EMBEDDING_HMAC_SECRET is not set"):
            Access.of(Settings.from_env({"WORKER_TOKEN": TOKEN}), Mode.QUEUE)
