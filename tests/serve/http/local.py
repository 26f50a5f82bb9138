"""The application in this process, over a fake model, for what needs a clock or a model of its own."""

from __future__ import annotations

import asyncio

import httpx

from embedding.serve.access import Access
from embedding.serve.http.app import make_app
from embedding.serve.http.gate import Gate
from embedding.serve.http.service import Service
from tests.fakes import fake_actions


def local_service(*, verifier=None, tokens=None, running=8, **fakes):
    """Return a service that is ready; *fakes* are `fake_actions`'."""
    gate = Gate(max_running=running, max_request_bytes=1_000_000)
    service = Service(gate, Access(verifier, tokens))
    service.begin(fake_actions(verifier=verifier, **fakes), {})
    return service


def post(service, path, body, **headers):
    """Return the response to *body*, as JSON, under *headers*."""

    async def run():
        transport = httpx.ASGITransport(app=make_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://worker") as client:
            return await client.post(path, json=body, headers=headers)

    return asyncio.run(run())
