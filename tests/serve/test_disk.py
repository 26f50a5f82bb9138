"""A full disk cannot fail a job: a worker that serves writes nothing to it."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from embedding.contract.keys import Keyring
from embedding.contract.signatures import sign_v3
from tests.serve.conftest import WORKER


HANDLER = [sys.executable, "-P", str(Path(__file__).with_name("recording_handler.py"))]
SECRET = "an-example-secret-of-at-least-32-bytes"
DISK = re.compile(r"@disk \S+ '([^']*)'")


def test_serving_writes_nothing(platform, picture):
    """Pictures, texts, bad items, failing downloads and checks leave no file, temporary or other."""
    env = {name: value for name, value in WORKER.items() if name != "ALLOW_INSECURE_AUTH"}
    jobs = [
        {"image_base64": picture},
        {"texts": ["a", "Ã©"]},
        {"items": [{"image_base64": picture}, {"image_base64": "AAAA"}, {"image_url": "https://127.0.0.1/"}]},
        {"action": "health", "check": True},
        {"text": 5},
    ]
    key = Keyring.parse(SECRET).newest
    with platform.worker(HANDLER, env=env | {"EMBEDDING_HMAC_SECRET": SECRET}) as worker:
        worker.wait_ready(60)
        results = [platform.run_sync({**job, "auth": sign_v3(job, key)}) for job in jobs]
        written = {path for path in DISK.findall(worker.log()) if not path.startswith("/dev/")}

        assert os.devnull in DISK.findall(worker.log())

    assert [result.status for result in results] == ["COMPLETED"] * 4 + ["FAILED"]
    assert written == set()
