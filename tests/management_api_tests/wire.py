"""Bare HTTP to the management API, and the bodies that most tests send."""

from __future__ import annotations

import requests


ENDPOINT = {
    "name": "clip",
    "type": "QUEUE",
    "image": "org/clip:1",
    "gpu": {"pools": ["AMPERE_16"]},
    "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4},
}
VOLUME = {"name": "weights", "size": 20, "dataCenter": "EU-RO-1"}


class Wire:
    """Bare HTTP to the API."""

    def __init__(self, api) -> None:
        self.api = api
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {api.api_key}"

    def send(self, method, path, body=None, **kwargs):
        """Send a request to a path below /v2, with *body* as JSON."""
        return self.session.request(method, f"{self.api.url}/{path}", json=body, timeout=10, **kwargs)

    def create(self, **fields):
        """Create the usual endpoint with other *fields*; a field that is None is left out."""
        body = {name: value for name, value in (ENDPOINT | fields).items() if value is not None}
        return self.send("POST", "serverless", body)

    def patch(self, **fields):
        """Change the only endpoint."""
        return self.send("PATCH", f"serverless/{self.api.endpoints[0]['id']}", fields)
