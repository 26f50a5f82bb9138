"""Which requests go through the proxies that the environment names, and what these see of a credential."""

from __future__ import annotations

import pytest

from embedding.client import HttpClient, NotConfigured, ServerlessClient, Unreachable
from embedding.client.wire import ENVIRONMENT
from tests.client.scripted import Answer, scripted


KEY = "a-key-that-nobody-may-read"
SECRET = "a-secret-that-nobody-may-read-or-guess"


@pytest.fixture
def script():
    """Return a worker on this machine."""
    with scripted() as script:
        yield script


@pytest.fixture
def environ(monkeypatch):
    """Return what sets the variables of proxies and certificates, and no others, for a test."""
    for name in [*ENVIRONMENT.split(", "), "NO_PROXY"]:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch.setenv


@pytest.fixture
def proxy(environ):
    """Return a proxy for everything, as the environment may name one."""
    with scripted() as proxy:
        environ("ALL_PROXY", proxy.url)
        environ("HTTP_PROXY", proxy.url)
        environ("HTTPS_PROXY", proxy.url)
        yield proxy


@pytest.mark.parametrize(
    "make",
    [
        lambda url: HttpClient(url, token=KEY),
        lambda url: HttpClient(url.replace("127.0.0.1", "localhost"), token=KEY),
        lambda url: HttpClient(url.replace("http://", "HTTP://nobody:pass@")),
        lambda url: HttpClient(url, secret=SECRET),
        HttpClient,
        lambda url: ServerlessClient("x1", KEY, api_url=f"{url}/v2"),
    ],
    ids=["token", "name", "password", "signed", "open", "key"],
)
def test_what_stays_on_this_machine_passes_a_proxy_by(proxy, script, make):
    """A token or key in clear text goes to nobody else, and a proxy would ask its own machine."""
    with make(script.url) as client:
        client.embed_text("x")

    assert (len(proxy.asked), len(script.asked)) == (0, 1)


def test_a_signed_request_to_another_machine_goes_through_it(proxy):
    """Where plain http may go at all, the way out is the one that the environment names."""
    with HttpClient("http://pod.example", secret=SECRET) as client:
        client.embed_text("x")

    assert proxy.asked[0].path.startswith("http://pod.example/v1/")


def test_a_proxy_sees_the_host_of_https_alone(proxy):
    """It is asked for a tunnel, without the token that goes inside."""
    proxy.answers = [Answer(403)]
    with HttpClient("https://pod.example", token=KEY, attempts=1) as client:
        with pytest.raises(Unreachable, match="ProxyError"):
            client.embed_text("x")

    asked = proxy.asked[0]
    assert (asked.method, asked.path) == ("CONNECT", "pod.example:443")
    assert KEY not in str(asked.headers)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("HTTPS_PROXY", "ftp://proxy.example", "ValueError"),
        ("ALL_PROXY", "http://nobody:pass#word@proxy.example:3128", "InvalidURL"),
        ("SSL_CERT_FILE", "/nowhere/pass.pem", "FileNotFoundError"),
    ],
)
def test_a_variable_that_cannot_be_used_is_told(environ, name, value, words):
    """It is an exception of the client's, which names the variables and repeats none."""
    environ(name, value)

    with HttpClient("https://pod.example") as client, pytest.raises(NotConfigured, match=words) as told:
        client.embed_text("x")
    assert name in str(told.value)
    assert "pass" not in str(told.value)
