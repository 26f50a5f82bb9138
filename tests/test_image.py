"""What may not be in the image: secrets, and files that the worker does not need."""

from __future__ import annotations

import re
from pathlib import Path

from embedding.intake.limits import FetchLimits


ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
SECRET_NAMES = re.compile(r"SECRET|TOKEN|KEY|PASSW|CREDENTIAL|HMAC|AUTH", re.IGNORECASE)


def test_no_secret_is_built_in():
    """No build argument and no variable of the image could carry one: layers keep both for ever."""
    names = re.findall(r"(?:^(?:ARG|ENV)|\\\n) +(\w+)=?", DOCKERFILE, re.MULTILINE)

    assert {"BASE", "GIT_COMMIT", "RUNPOD_SERVERLESS", "CLIP_PRETRAINED"} <= set(names)
    assert [name for name in names if SECRET_NAMES.search(name)] == []


def test_the_identity_is_never_of_the_image_before():
    """A command runs between the arguments that identify an image and where they are used.

    Caches of buildah and podman look at arguments only there.
    """
    steps = re.findall(r"^(ARG (?:GIT_COMMIT|BUILD_TIME)|RUN|ENV|LABEL)\b", DOCKERFILE, re.MULTILINE)

    assert steps[-6:] == ["ARG GIT_COMMIT", "ARG BUILD_TIME", "RUN", "ENV", "ENV", "LABEL"]
    uses = [place.start() for place in re.finditer(r"\$\{(?:GIT_COMMIT|BUILD_TIME)\}", DOCKERFILE)]
    assert len(uses) == 4
    assert min(uses) > DOCKERFILE.rindex("\nRUN ") > DOCKERFILE.index("ARG BUILD_TIME")


def test_hanging_lookups_end_with_their_downloads():
    """A name server that says nothing holds a thread no longer than its download waits."""
    timeout_s, attempts = re.search(r'RES_OPTIONS="timeout:(\d+) attempts:(\d+)"', DOCKERFILE).groups()

    assert int(timeout_s) * int(attempts) <= FetchLimits().dns_timeout_s


def test_only_the_worker_is_copied():
    """The build sees the worker and its pins: no history, no tests, no folder of settings."""
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in ignored if line and not line.startswith("#")]

    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    assert allowed == {"requirements.txt", "constraints.txt", "handler.py", "embedding"}
