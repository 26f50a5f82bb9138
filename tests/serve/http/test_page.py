"""The page at `/`, as any client gets it; `make page-test` tries it in a browser."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from embedding.serve.http.page import FILE, make_page
from embedding.settings import Settings
from tests.serve.http.process import OPEN, serving


ADDRESS = r"\b(?:https?|wss?):|['\"(]//|@import"
FORBIDDEN = re.compile(rf"{ADDRESS}|\bon\w+=|\bstyle=|innerHTML|localStorage|sessionStorage|indexedDB")


@pytest.fixture
def response(client):
    """Return the service's answer at `/`."""
    return client.get("/")


def policy_of(response):
    """Return the directives of a Content-Security-Policy, each with its sources."""
    directives = response.headers["content-security-policy"].split("; ")
    return {name: sources for name, *sources in map(str.split, directives)}


def test_headers(response):
    """It is HTML that no other site may frame or learn of, and that a browser takes for nothing else."""
    told = {
        "content-type": "text/html; charset=utf-8",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "cache-control": "no-cache",
    }

    assert response.status_code == 200
    assert {name: response.headers[name] for name in told} == told


def test_policy(response):
    """Its own script and style run, by their hashes; it shows its own pictures and asks its own service."""
    hashes = {}
    for tag in ("script", "style"):
        (content,) = re.findall(f"<{tag}[^>]*>(.*?)</{tag}>", response.text, re.DOTALL)
        hashes[tag] = f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"

    assert policy_of(response) == {
        "default-src": ["'none'"],
        "script-src": [hashes["script"]],
        "style-src": [hashes["style"]],
        "img-src": ["blob:", "data:"],
        "connect-src": ["'self'"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
        "frame-ancestors": ["'none'"],
        "require-trusted-types-for": ["'script'"],
        "trusted-types": ["'none'"],
    }


def test_it_names_no_other_place():
    """The file holds no address, no inline handler or style, and stores nothing in the browser."""
    assert FORBIDDEN.findall(FILE.read_text(encoding="utf-8")) == []


def test_it_knows_the_limits():
    """It is told how many items and bytes a request may have."""
    html = make_page(max_batch_size=7, max_request_bytes=12_345)().body.decode()

    assert '<body data-max-items="7" data-max-bytes="12345">' in html
    assert "MAX_BATCH_SIZE" not in html and "MAX_REQUEST_SIZE_BYTES" not in html


def test_limits_are_the_services(response):
    """The page that is served names the limits of the service that serves it."""
    defaults = Settings.from_env({})
    limits = f'data-max-items="{defaults.max_batch_size}" data-max-bytes="{defaults.max_request_bytes}"'

    assert limits in response.text


def test_off():
    """With SERVE_PAGE=0, `/` is a route as unknown as any other."""
    with serving({**OPEN, "SERVE_PAGE": "0"}, ready=False) as service:
        answer = service.client.get("/")

        assert answer.status_code == 404
        assert answer.json() == service.client.get("/nowhere").json()
        assert "content-security-policy" not in answer.headers
