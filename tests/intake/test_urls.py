"""What a URL must look like before anything is looked up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding.errors import UrlRefused
from embedding.intake.limits import FetchLimits
from embedding.intake.urls import REFUSAL, Target, parse_url, redirect


STRICT = FetchLimits()
HTTP = FetchLimits(allow_http=True)
ORIGIN = Target("https", "example.com", 443, "/a/b?c")

REFUSED = {
    "userinfo": "https://example.com@169.254.169.254/",
    "empty userinfo": "https://@example.com/",
    "password": "https://user:pass@example.com/",
    "backslash": "https://127.0.0.1\\@example.com/",
    "backslashes for slashes": "https:\\\\example.com/",
    "tab": "https://example.com\t.evil/",
    "newline": "https://example.com/\nHost: evil",
    "null": "https://example.com/\0",
    "space": "https://example.com/a b",
    "no-break space": "https://example.com/\u00a0",
    "next line": "https://example.com/\u0085",
    "leading space": " https://example.com/",
    "circled digits": "https://①②⑦.0.0.1/",
    "full-width dots": "https://127。0。0。1/",
    "NFKC slash": "https://example.com\u2100.evil/",
    "not ASCII": "https://münchen.example/",
    "scope": "https://[fe80::1%25eth0]/",
    "brackets around a name": "https://[example.com]/",
    "unbalanced bracket": "https://[::1/",
    "IPv6 without brackets": "https://::1/",
    "future literal": "https://[v1.a]/",
    "no slashes": "https:169.254.169.254/",
    "no scheme": "//example.com/",
    "no host": "https:///path",
    "only dots": "https://../",
    "empty label": "https://a..b/",
    "two trailing dots": "https://example.com../",
    "label of 64": f"https://{'a' * 64}.com/",
    "name of 254": f"https://{'a.' * 126}ab/",
    "two ports": "https://example.com:80:80/",
    "port of letters": "https://example.com:https/",
    "port 0": "https://example.com:0/",
    "port 22": "https://example.com:22/",
    "port 8080": "https://example.com:8080/",
    "port 65536": "https://example.com:65536/",
    "plain http": "http://example.com/",
    "file": "file:///etc/passwd",
    "ftp": "ftp://example.com/",
    "data": "data:image/png;base64,AAAA",
    "lone surrogate": "https://example.com/\ud800",
    "empty": "",
}
ACCEPTED = {
    "https://example.com": Target("https", "example.com", 443, "/"),
    "HTTPS://EXAMPLE.com/Path": Target("https", "example.com", 443, "/Path"),
    "https://example.com./": Target("https", "example.com", 443, "/"),
    "https://example.com:443/": Target("https", "example.com", 443, "/"),
    "https://example.com:/": Target("https", "example.com", 443, "/"),
    "https://example.com:80/": Target("https", "example.com", 80, "/"),
    "https://example.com/a?b=c&d#fragment": Target("https", "example.com", 443, "/a?b=c&d"),
    "https://example.com?b": Target("https", "example.com", 443, "/?b"),
    "https://xn--mnchen-3ya.example/": Target("https", "xn--mnchen-3ya.example", 443, "/"),
    "https://a_b.example/": Target("https", "a_b.example", 443, "/"),
    "https://[2606:4700::1111]/": Target("https", "2606:4700::1111", 443, "/"),
    "https://example.com/ü?ü": Target("https", "example.com", 443, "/%C3%BC?%C3%BC"),
    "https://example.com/%20%zz": Target("https", "example.com", 443, "/%20%zz"),
    "https://0x7f.1/": Target("https", "0x7f.1", 443, "/"),  # a name; what it resolves to decides
}


def is_refused(url, limits=STRICT):
    """Return whether *url* is refused."""
    try:
        parse_url(url, limits)
    except UrlRefused:
        return True
    return False


class TestParseUrl:
    @pytest.mark.parametrize("url", REFUSED.values(), ids=REFUSED)
    def test_refuses_what_is_odd(self, url):
        """Whatever two parsers could read differently is refused for good, all with one message."""
        with pytest.raises(UrlRefused) as refused:
            parse_url(url, STRICT)

        assert refused.value.message == REFUSAL
        assert not refused.value.retryable

    @pytest.mark.parametrize(("url", "target"), ACCEPTED.items(), ids=list(ACCEPTED))
    def test_gives_the_parts_of_what_is_plain(self, url, target):
        """A plain URL comes apart once, without its fragment, with its path fit for a request line."""
        assert parse_url(url, STRICT) == target

    def test_place(self):
        """Where a request goes is its scheme, host and port, whatever it asks for there."""
        assert parse_url("https://A.test/x?y", STRICT).place == ("https", "a.test", 443)

    def test_length_ends_at_the_limit(self):
        """2,048 characters pass; one more does not."""
        url = "https://example.com/"
        fill = "a" * (STRICT.max_url_length - len(url))

        assert parse_url(url + fill[1:], STRICT).path == f"/{fill[1:]}"
        assert parse_url(url + fill, STRICT).path == f"/{fill}"
        assert is_refused(url + fill + "a")

    def test_http_needs_permission(self):
        """Plain http is refused unless it is allowed."""
        assert parse_url("http://example.com/", HTTP) == Target("http", "example.com", 80, "/")

    @pytest.mark.parametrize(
        ("host", "allowed"),
        [
            ("example.com", True),
            ("EXAMPLE.com", True),
            ("example.com.", True),
            ("cdn.example.com", True),
            ("notexample.com", False),
            ("example.com.evil.net", False),
            ("example.org", False),
            ("com", False),
        ],
    )
    def test_domains_are_matched_by_labels(self, host, allowed):
        """With a list of domains only these and the names below them are allowed."""
        limits = FetchLimits(allowed_domains=("Example.com.", "other.net"))

        assert is_refused(f"https://{host}/", limits) != allowed

    @given(st.text() | st.text().map("https://{}".format) | st.text().map("https://example.com/{}".format))
    def test_any_text_is_taken_apart_or_refused(self, url):
        """No text raises anything else; what passes has an ASCII host and a printable ASCII path."""
        if is_refused(url):
            return
        target = parse_url(url, STRICT)

        assert target.host.isascii()
        assert target.path.isascii()
        assert target.path.isprintable()
        assert " " not in target.path
        assert target.port in STRICT.ports


class TestRedirect:
    @pytest.mark.parametrize(
        ("location", "target"),
        [
            ("https://other.net/x", Target("https", "other.net", 443, "/x")),
            ("/x", Target("https", "example.com", 443, "/x")),
            ("x", Target("https", "example.com", 443, "/a/x")),
            ("//other.net/x", Target("https", "other.net", 443, "/x")),
            ("?q", Target("https", "example.com", 443, "/a/b?q")),
            ("/\xc3\xbc", Target("https", "example.com", 443, "/%C3%BC")),
            ("/a b", Target("https", "example.com", 443, "/a%20b")),
            ("", Target("https", "example.com", 443, "/a/b?c")),
        ],
    )
    def test_leads_where_a_browser_would_go(self, location, target):
        """Absolute, relative and non-ASCII locations are resolved against where they came from."""
        assert redirect(ORIGIN, location, HTTP) == target

    def test_keeps_to_brackets(self):
        """A relative redirect from an IPv6 literal stays there."""
        origin = Target("https", "2606:4700::1111", 443, "/a")

        assert redirect(origin, "b", STRICT) == Target("https", "2606:4700::1111", 443, "/b")

    @pytest.mark.parametrize(
        "location",
        [
            "http://example.com/",
            "https://u@example.com/",
            "https://example.com:22/",
            "//[x",
            "file:///x",
            "\\\\evil\\x",
        ],
    )
    def test_passes_the_same_gate(self, location):
        """A redirect that would be refused as a URL is refused, and so is one from https to http."""
        with pytest.raises(UrlRefused):
            redirect(ORIGIN, location, HTTP)

    @given(st.text(st.characters(max_codepoint=255)))
    def test_any_header_is_followed_or_refused(self, location):
        """No Location header raises anything but a refusal."""
        try:
            target = redirect(ORIGIN, location, STRICT)
        except UrlRefused:
            return

        assert target.scheme == "https"
