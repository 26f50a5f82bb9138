"""push_worker.sh with a tiny image and a real registry on this machine.

buildah pushes and docker-registry serves; where either is missing these tests are skipped.
`make image-test` pushes the whole image.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import httpx
import pytest


ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
USER, PASSWORD = "pusher", "of-no-use-elsewhere"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not (shutil.which("buildah") and shutil.which("docker-registry")),
    reason="needs root, buildah and docker-registry (Debian has both)",
)


@dataclass(frozen=True)
class Registry:
    """A registry that wants a login, and what buildah needs to know of this test's own storage."""

    host: str
    environment: dict[str, str]

    def buildah(self, *arguments):
        """Run buildah and return what it prints."""
        done = subprocess.run(
            ["buildah", *arguments], env=self.environment, stdout=subprocess.PIPE, check=True
        )
        return done.stdout.decode().strip()

    def push(self, tag, place=None):
        """Run the script."""
        script = [ROOT / "scripts" / "push_worker.sh", tag, place or f"{self.host}/team"]
        return subprocess.run(script, env=self.environment, capture_output=True, text=True, timeout=60)

    def manifest(self, tag):
        """Return the bytes of the manifest that the registry has under *tag*."""
        url = f"http://{self.host}/v2/team/clip-embedding-worker/manifests/{tag}"
        answer = httpx.get(url, auth=(USER, PASSWORD), headers={"Accept": MANIFEST})
        return answer.raise_for_status().content


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """Return a registry with nothing in it, and an image clip-embedding-worker:v1 to push."""
    folder = tmp_path_factory.mktemp("registry")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    (folder / "storage.conf").write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/images"\nrunroot = "{folder}/run"\n'
    )
    (folder / "users").write_bytes(USER.encode() + b":" + bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)))
    (folder / "registry.yml").write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\nhttp: {{addr: '{host}'}}\n"
        f"auth: {{htpasswd: {{realm: test, path: {folder}/users}}}}\n"
    )
    (folder / "auth.json").write_text("{}")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "ENGINE": "buildah",
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        "REGISTRY_AUTH_FILE": str(folder / "auth.json"),
    }
    made = Registry(host, environment)
    container = made.buildah("from", "scratch")
    made.buildah("config", "--label", f"org.opencontainers.image.revision={COMMIT}", container)
    made.buildah("commit", "--quiet", "--rm", container, "clip-embedding-worker:v1")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", folder / "registry.yml"], stdout=log, stderr=log
        )
    try:
        wait_until_it_answers(host)
        yield made
    finally:
        process.kill()
        process.wait(10)


def wait_until_it_answers(host):
    """Return when a registry answers there."""
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        try:
            assert httpx.get(f"http://{host}/v2/").status_code == 401
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("the registry did not start")


def test_push_without_login_then_with(registry):
    """A stranger is told to log in; after that both tags stand for the digest that is printed, and again."""
    refused = registry.push("v1")
    assert (refused.returncode, refused.stdout) == (1, "")
    last = refused.stderr.splitlines()[-1]
    assert last.startswith(f"✗ {registry.host} refuses the push: log in (buildah login {registry.host})")

    registry.buildah("login", "--tls-verify=false", "--username", USER, "--password", PASSWORD, registry.host)
    pushed = registry.push("v1")

    assert pushed.returncode == 0, pushed.stderr
    digest = f"sha256:{hashlib.sha256(registry.manifest('v1')).hexdigest()}"
    assert registry.manifest(COMMIT) == registry.manifest("v1")
    assert pushed.stdout.splitlines() == [
        f"{registry.host}/team/clip-embedding-worker@{digest}",
        f"EXPECTED_WORKER_GIT_COMMIT={COMMIT}",
        f"EXPECTED_WORKER_IMAGE_DIGEST={digest}",
        f"IMAGE_DIGEST={digest}",
    ]
    assert registry.push("v1").stdout == pushed.stdout


def test_unknown_image(registry):
    """An image that is not here is named."""
    done = registry.push("v2")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("✗ there is no image clip-embedding-worker:v2")
    assert done.stderr.count("\n") == 1
