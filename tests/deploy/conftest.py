"""The command line against a loopback RunPod: its management API, its queue, and a worker without a model."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from deploy.__main__ import main
from tests.deploy.stand_in import stand_in_worker
from tests.loopback import LoopbackRunPod
from tests.management_api import ManagementApi


ROOT = Path(__file__).parents[2]
API_KEY = "rpa_loopback_key_that_must_not_be_told"
SECRET = "a-secret-of-the-tests-that-has-more-than-32-bytes"
USERNAME, PASSWORD = "a-registry-user-name", "a-registry-password"
OLD, NEW = (f"docker.io/you/worker:{number}@sha256:{number * 64}" for number in "12")
VARIABLES = {
    "RUNPOD_API_KEY": API_KEY,
    "EMBEDDING_HMAC_SECRET": SECRET,
    "REGISTRY_USERNAME": USERNAME,
    "REGISTRY_PASSWORD": PASSWORD,
    "NO_PROXY": "127.0.0.1",
}
CONFIG = f"""
name = "clip"
image = "{OLD}"
secrets = ["EMBEDDING_HMAC_SECRET"]
[gpu]
pools = ["AMPERE_16", "ADA_24"]
[env]
RUNPOD_LOG_LEVEL = "INFO"
"""
VOLUME = """
[volume]
name = "weights"
data_center = "EU-RO-1"
size_gb = 20
"""
REGISTRY = """
[registry]
name = "private"
username_env = "REGISTRY_USERNAME"
password_env = "REGISTRY_PASSWORD"
"""


@dataclass
class Done:
    """How a command ended, and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def all(self) -> str:
        return self.out + self.err


@dataclass
class Deploy:
    """`python -m deploy` in this process, in a folder of its own, with production.toml in it."""

    api: Any
    folder: Path
    capsys: Any
    told: list[str] = field(default_factory=list)

    def write(self, text: str) -> None:
        (self.folder / "production.toml").write_text(text, encoding="utf-8")

    def arguments(self, command: str, *flags: str) -> list[str]:
        """The command line for the environment's file, with short waits."""
        waits = [] if command == "destroy" else ["--wait-s", "8", "--poll-s", "0.05"]
        waits += ["--api-url", self.api.url]
        records = [] if command == "smoke" else ["--records", str(self.folder / "records")]
        return [command, str(self.folder / "production.toml"), *waits, *records, *flags]

    def __call__(self, command: str, *flags: str) -> Done:
        return self.main(*self.arguments(command, *flags))

    def apply(self, *flags: str) -> Done:
        return self("apply", "--yes", *flags)

    def main(self, *arguments: str) -> Done:
        status = main(arguments)
        out, err = self.capsys.readouterr()
        self.told += [out, err]
        return Done(status, out, err)

    def command(self, *arguments: str) -> list[str]:
        """The same as a process of its own."""
        return [sys.executable, "-m", "deploy", *arguments]


@pytest.fixture(scope="module")
def platform():
    """A loopback RunPod whose polls are short, and whose key is the management API's."""
    with LoopbackRunPod(hold_s=0.1, api_key=API_KEY) as platform:
        yield platform


@pytest.fixture
def api(platform):
    """A management API whose endpoints' jobs go to the platform."""
    with ManagementApi(job_url=platform.endpoint_url, api_key=API_KEY) as api:
        yield api


@pytest.fixture
def worker(platform, api):
    """A stand-in worker that is what the first endpoint asks for; yields the inputs of its jobs."""

    def identity():
        variables = api.endpoints[0]["env"] if api.endpoints else {}
        return {"gitCommit": "c0ffee1", "declaredImageDigest": variables.get("IMAGE_DIGEST")}

    with stand_in_worker(platform, identity=identity) as inputs:
        yield inputs


@pytest.fixture
def deploy(api, tmp_path, capsys, monkeypatch):
    """The command line; no output and no record ever holds the key or a secret."""
    for name in ("GITHUB_STEP_SUMMARY", "RUNPOD_API_URL", "WORKER_TOKEN", "EXPECTED_WORKER_GIT_COMMIT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    deploy = Deploy(api, tmp_path, capsys)
    deploy.write(CONFIG)
    yield deploy
    kept = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*") if path.is_file()]
    for text in [*deploy.told, *kept]:
        assert not [value for value in (API_KEY, SECRET, USERNAME, PASSWORD) if value in text]
