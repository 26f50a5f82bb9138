"""Where a token or an API key may travel."""

from __future__ import annotations

import pytest

from embedding.contract.destinations import may_carry_credentials


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "HTTPS://example.com:8443/v2",
        "http://localhost:8000",
        "http://LOCALHOST",
        "http://127.0.0.1",
        "http://127.255.255.254:1/x",
        "http://[::1]:8000",
    ],
)
def test_encrypted_or_at_home(url):
    """To https anywhere, and by plain http within this machine."""
    assert may_carry_credentials(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "http://128.0.0.1",
        "http://126.255.255.255",
        "http://10.0.0.1:8000",
        "http://0.0.0.0",
        "http://[::2]",
        "http://localhost.example",
        "http://127.0.0.1.example",
        "http://127.0.0.1@example.com",
        "http://2130706433",
        "ftp://127.0.0.1",
        "127.0.0.1",
        "https://",
        "http://[::1",
        "",
    ],
)
def test_in_clear_text(url):
    """Nowhere else, whatever the address looks like."""
    assert not may_carry_credentials(url)
