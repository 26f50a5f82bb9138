"""An account at RunPod on loopback, for documents that deploy: each endpoint gets a real worker of its own.

The worker has the variables of its endpoint, and serves the demo model as if that were in every image.
"""

from __future__ import annotations

import shutil
import sys
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.loopback import LoopbackRunPod
from tests.management_api import ManagementApi


ROOT = Path(__file__).parents[2]
API_KEY = "rpa_the_key_of_an_account_on_loopback"
SECRET = "an-example-secret-of-at-least-32-bytes"
IN_EVERY_IMAGE = {
    "RUNPOD_SERVERLESS": "1",
    "ALLOW_DEMO_MODEL": "1",
    "CLIP_PRECISION": "fp32",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
}
LOOK_S = 0.005  # a change must have ended the worker before, when the smoke test's job comes


@contextmanager
def runpod_account(folder):
    """Yield the environment of a shell in *folder*, which becomes a checkout that may be written to."""
    shutil.copytree(
        ROOT / "deploy", folder / "deploy", ignore=shutil.ignore_patterns("grafana", "__pycache__")
    )
    for name in ("embedding", ".venv", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    with (
        LoopbackRunPod(hold_s=0.1, api_key=API_KEY) as platform,
        ManagementApi(job_url=platform.endpoint_url, api_key=API_KEY) as api,
        _workers(platform, api),
    ):
        yield {"RUNPOD_API_URL": api.url, "RUNPOD_API_KEY": API_KEY, "EMBEDDING_HMAC_SECRET": SECRET}


@contextmanager
def _workers(platform, api):
    over = threading.Event()

    def keep():
        running, asked = ExitStack(), None
        with running:
            while not over.wait(LOOK_S):
                endpoint = next(iter(api.endpoints), None)
                wanted = endpoint and endpoint["workers"]["max"] and (endpoint["image"], endpoint["env"])
                if wanted == asked:
                    continue
                running.close()
                asked = wanted
                if wanted:
                    running.enter_context(_worker(platform, *wanted))

    thread = threading.Thread(target=keep, name="account")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _worker(platform, image, variables):
    commit = image.rpartition(":")[2][:40]
    command = [sys.executable, str(ROOT / "handler.py")]
    return platform.worker(command, env=IN_EVERY_IMAGE | {"WORKER_GIT_COMMIT": commit} | variables)
