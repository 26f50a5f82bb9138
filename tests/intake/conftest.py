"""Servers, certificates and fetchers for the tests of downloads; the reference for those of pixels."""

from __future__ import annotations

import ssl

import certifi
import numpy as np
import pytest
import trustme

from bench.urls_worker import is_here_or_public
from embedding.intake.fetch import Fetcher, FetchLimits
from tests.intake.servers import Resolver, Server


@pytest.fixture
def serve():
    """Start servers, and stop them when the test is over."""
    servers = []

    def start(*answers, **options):
        servers.append(Server(*answers, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(scope="session")
def public_trust():
    """A client's TLS as it is by default, made once: reading the public authorities takes a while."""
    return ssl.create_default_context(cafile=certifi.where())


@pytest.fixture
def fetcher(public_trust):
    """Make fetchers that reach the loopback as if it were public, over http, at any port of *servers*."""
    made = []

    def make(*servers, resolver=None, tls=None, is_allowed=is_here_or_public, **limits):
        ports = frozenset(server.port for server in servers) | {443, 80}
        limits = FetchLimits(**{"allow_http": True, "ports": ports, "backoff_base_s": 0.01, **limits})
        fetcher = Fetcher(
            limits, resolver=resolver or Resolver(), is_allowed=is_allowed, tls=tls or public_trust
        )
        made.append(fetcher)
        return fetcher

    yield make
    for fetcher in made:
        fetcher.close()


@pytest.fixture(scope="session")
def authority():
    """A certificate authority that only these tests trust."""
    return trustme.CA()


@pytest.fixture
def trust(authority):
    """A client that trusts the authority."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def serve_tls(serve, authority):
    """Start servers with a certificate for a name."""

    def start(name, *answers, **options):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(context)
        return serve(*answers, tls=context, **options)

    return start


@pytest.fixture(scope="session")
def reference():
    """open_clip's own evaluation transform, up to the tensor."""
    transform = pytest.importorskip("open_clip.transform")

    def build(preprocess):
        config = transform.PreprocessCfg(
            size=preprocess.size,
            interpolation=preprocess.interpolation,
            resize_mode=preprocess.resize_mode,
            fill_color=preprocess.fill_color,
        )
        steps = transform.image_transform_v2(config, is_train=False)
        steps.transforms = steps.transforms[:-2]  # to tensor, normalise
        return lambda image: np.array(steps(image)).astype(int)

    return build
