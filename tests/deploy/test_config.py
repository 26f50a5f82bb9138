"""The environment's file: what may be in it, and what is said of what may not."""

from __future__ import annotations

import copy
import tomllib

import pytest
import torch

from deploy.config import ENVIRONMENTS, IMAGE_CUDA_VERSION, parse, read
from deploy.errors import ConfigError, DeployError
from deploy.rules import secret_faults
from tests.deploy.conftest import CONFIG, OLD, VOLUME


GOOD = tomllib.loads(CONFIG + VOLUME)
SECRET = "s" * 32


def changed(path, value):
    """Return the good document with one dotted key set, or without it where *value* is None."""
    document = copy.deepcopy(GOOD)
    *tables, key = path.split(".")
    table = document
    for name in tables:
        table = table.setdefault(name, {})
    if value is None:
        del table[key]
    else:
        table[key] = value
    return document


def faults_of(document):
    """Return what is said of a document that is not valid."""
    with pytest.raises(ConfigError) as refused:
        parse(document, source="production.toml")
    return refused.value.faults


def test_the_cuda_version_is_that_of_the_torch_installed():
    """A driver that is too old for the image's torch is never asked for by default."""
    assert torch.version.cuda == IMAGE_CUDA_VERSION


def test_the_example_is_complete_and_valid():
    """The example names every key, and is refused only for its image."""
    path = ENVIRONMENTS / "example.toml"
    text = path.read_text(encoding="utf-8")

    assert read("example", {"image": OLD}).name == "clip-embeddings"
    assert faults_of(tomllib.loads(text)) == ["image: still the example's; name the image that you pushed"]
    uncommented = "\n".join(line.removeprefix("# ") for line in text.splitlines())
    for part in ("gpu", "cpu", "workers", "scaling", "volume", "registry", "http", "env"):
        assert f"\n[{part}]\n" in uncommented


BOUNDS = [
    ("execution_timeout_s", [600, 601, 1800, 3600, 7200, 14400, 86399, 86400], [599, 86401]),
    ("workers.min", [0, 1], [-1]),
    ("workers.max", [0, 1], [-1]),
    ("workers.idle_timeout_s", [1, 2, 3599, 3600], [0, 3601]),
    ("scaling.queue_delay_s", [0.5, 0.6], [0.4]),
    ("container_disk_gb", [1, 2], [0]),
    ("gpu.count", [1, 2], [0]),
    ("volume.size_gb", [10, 11, 4095, 4096], [9, 4097]),
    ("name", ["n", "n" * 190, "n" * 191], ["", "n" * 192]),
    ("gpu.min_cuda_version", ["12.4", "13.0", ""], ["12", "newest"]),
]


@pytest.mark.parametrize(("key", "good", "bad"), BOUNDS, ids=[row[0] for row in BOUNDS])
def test_bounds(key, good, bad):
    """A value at its limit is taken, one past it is refused by its key."""
    for value in good:
        parse(changed(key, value), source="f")
    for value in bad:
        assert faults_of(changed(key, value))[0].startswith(f"{key}: ")


FAULTS = [
    ("imge", "x", "imge: no such key; did you mean image?"),
    ("workers.maximum", 3, "workers.maximum: no such key; did you mean max?"),
    ("gpu.zzz", 1, "gpu.zzz: no such key; there are pools, count, excluded_types, min_cuda_version"),
    ("image", None, "image: field required"),
    ("type", "pod", "type: input should be 'queue' or 'load_balancer'"),
    ("cpu", {"flavor": "cpu5c", "vcpus": 4}, "gpu, cpu: give exactly one of the two tables"),
    ("gpu", None, "gpu, cpu: give exactly one of the two tables"),
    ("scaling", {}, "scaling: give exactly one of queue_delay_s and request_count"),
    ("scaling", {"queue_delay_s": 4, "request_count": 4}, "scaling: give exactly one of"),
    ("type", "load_balancer", "scaling: a load balancer has no queue; give request_count"),
    ("workers", {"min": 4, "max": 3}, "workers.min: 4 is more than workers.max, 3"),
    ("workers", {"min": 4}, "workers.min: 4 is more than workers.max, 3"),
    ("http", {"port": 80}, 'http: only for type = "load_balancer"'),
    ("data_centers", ["US-TX-3"], "data_centers: the volume is in EU-RO-1, where alone"),
    ("env.IMAGE_DIGEST", "x", "env.IMAGE_DIGEST: set by this command; the key is image"),
    ("env.WORKER_TOKEN", "x", "env.WORKER_TOKEN: a secret; name it in `secrets`"),
    ("env.HF_TOKEN", "x", "env.HF_TOKEN: a secret; name it in `secrets`"),
    ("env.AWS_ACCESS_KEY_ID", "x", "env.AWS_ACCESS_KEY_ID: a secret; name it in `secrets`"),
    ("env.A B", "x", "env.A B: string should match pattern"),
    ("secrets", ["EMBEDDING_HMAC_SECRET"] * 2, "EMBEDDING_HMAC_SECRET stands there twice"),
    ("secrets", ["EMBEDDING_HMAC_SECRET", "RUNPOD_LOG_LEVEL"], "it is in `secrets` too"),
    ("secrets", [], "secrets: the worker starts with EMBEDDING_HMAC_SECRET only"),
    ("secrets", ["WORKER_TOKEN"], "secrets: the worker starts with EMBEDDING_HMAC_SECRET only"),
    ("registry", {"name": "r", "username_env": "U"}, "registry: give both of username_env and password_env"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "told"), FAULTS)
def test_faults(key, value, told):
    """What breaks a rule is told with its key and what to do."""
    assert any(told in fault for fault in faults_of(changed(key, value)))


def test_a_cpu_size_is_a_power_of_two():
    """RunPod has no other sizes."""
    document = changed("gpu", None) | {"cpu": {"flavor": "cpu5c", "vcpus": 3}}

    assert faults_of(document) == ["cpu.vcpus: 3 is not a power of two"]
    assert parse(document | {"cpu": {"flavor": "cpu5c", "vcpus": 4}}, source="f").cpu.vcpus == 4


def test_idle_timeout_and_request_count():
    """A queue that scales on requests has no idle timeout; a load balancer has one."""
    counting = changed("scaling", {"request_count": 4})

    assert parse(counting, source="f").idle_timeout_s is None
    assert parse(counting | {"type": "load_balancer"}, source="f").idle_timeout_s == 10
    told = faults_of(counting | {"workers": {"idle_timeout_s": 5}})
    assert told == ["workers.idle_timeout_s: leave it out; a queue that scales on request_count has none"]


def test_all_faults_are_told_together():
    """One run tells everything that is to be mended."""
    document = changed("gpu", None) | {"imge": "x", "execution_timeout_s": 1, "workers": {"min": 9}}
    told = faults_of(document)

    assert [fault.split(":")[0] for fault in told] == [
        "execution_timeout_s",
        "imge",
        "gpu, cpu",
        "workers.min",
    ]


@pytest.mark.parametrize(("value", "text"), [(1, "1"), (True, "1"), (False, "0"), (0.5, "0.5"), ("x", "x")])
def test_variables_may_be_numbers(value, text):
    """TOML's numbers and booleans become what the worker reads."""
    assert parse(changed("env.ALLOW_DEMO_MODEL", value), source="f").env["ALLOW_DEMO_MODEL"] == text


@pytest.mark.parametrize("name", ["AUTH_MIN_VERSION", "MAX_TOKENS", "CLIP_KEYS", "RUNPOD_LOG_LEVEL"])
def test_what_is_no_secret_may_stand_there(name):
    """Names of settings that only sound like a secret's are taken."""
    assert parse(changed(f"env.{name}", "1"), source="f").env[name] == "1"


def test_flags_meet_any_file(tmp_path):
    """What should be a table and is none is told as without a flag; two scalings are one too many."""
    path = tmp_path / "e.toml"
    path.write_text("workers = 3\n" + CONFIG, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"workers: input should be a valid"):
        read(str(path), {"workers.max": 2})
    path.write_text(CONFIG, encoding="utf-8")
    with pytest.raises(ConfigError, match="scaling: give exactly one of"):
        read(str(path), {"scaling.request_count": 2, "scaling.queue_delay_s": 9})
    assert read(str(path), {"scaling.request_count": 2}).scaling.queue_delay_s is None


def test_an_open_worker_needs_no_secret():
    """ALLOW_INSECURE_AUTH lets a worker start without any."""
    document = changed("secrets", [])
    document["env"]["ALLOW_INSECURE_AUTH"] = 1

    assert parse(document, source="f").secrets == ()


@pytest.mark.parametrize(
    ("image", "digest"),
    [(OLD, "sha256:" + 64 * "1"), ("you/worker:1", None), ("you/worker@sha256:12", None)],
)
def test_digest(image, digest):
    """The digest is what pins the image, if it is whole."""
    assert parse(changed("image", image), source="f").digest == digest


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({}, ["secrets: EMBEDDING_HMAC_SECRET is not set in this shell"]),
        ({"EMBEDDING_HMAC_SECRET": " "}, ["secrets: EMBEDDING_HMAC_SECRET is not set in this shell"]),
        (
            {"EMBEDDING_HMAC_SECRET": "short"},
            ["secrets: EMBEDDING_HMAC_SECRET: every secret must have at least 32 bytes"],
        ),
        ({"EMBEDDING_HMAC_SECRET": SECRET}, []),
    ],
)
def test_secrets_are_judged_before_anything_is_sent(environ, told):
    """A worker that would not start for its secret is not deployed."""
    assert secret_faults(("EMBEDDING_HMAC_SECRET",), environ) == told


def test_files_that_are_not_there_or_no_toml(tmp_path):
    """A name that leads nowhere is told with what there is; a broken file by its line."""
    with pytest.raises(DeployError, match="there is no environment nowhere") as refused:
        read("nowhere", {})
    assert "example" in refused.value.hint
    (tmp_path / "broken.toml").write_text("name = ", encoding="utf-8")
    with pytest.raises(DeployError, match=r"broken.toml cannot be read: Invalid value \(at end"):
        read(str(tmp_path / "broken.toml"), {})
