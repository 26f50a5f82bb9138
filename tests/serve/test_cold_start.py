"""From process start to a worker that can take jobs: what is imported, and what it tells of its time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from tests.serve.conftest import ROOT, WORKER


NOT_IMPORTED = [
    "open_clip",
    "torchvision",
    "timm",
    "transformers",
    "huggingface_hub.file_download",
    "torch._dynamo",
    "torch._inductor",
    "torch._meta_registrations",
    "sympy",
    "paramiko",
    "fastapi",
    "uvicorn",
    "prometheus_client",
    "boto3",
    "scipy",
]


def run(program, **env):
    """Run *program* in a fresh interpreter; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": os.environ["PATH"], **WORKER, **env},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_serving_path():
    """A worker that is ready for its first job has imported nothing that no plain CLIP ViT needs."""
    program = f"""
import json, sys
from embedding.serve.start import start
start()
import embedding.serve.loop
print(json.dumps([name for name in {NOT_IMPORTED} if name in sys.modules]))
"""
    printed = run(program, RUNPOD_WEBHOOK_GET_JOB="http://127.0.0.1:9/job-take/$ID?x")

    assert json.loads(printed.splitlines()[-1]) == []
    told = next(line for line in printed.splitlines() if line.startswith("start "))
    phases = "find weights|import torch|other imports meanwhile|load and check the model|all"
    assert len(re.findall(rf"({phases}) \d+", told)) == 5
    assert told.endswith(" ms")


class TestSdk:
    @pytest.mark.parametrize("version", ["1.12.0", "1.12.1"])
    def test_nothing_stays_replaced(self, version):
        """After the import paramiko and the CPU's description are there for whoever wants them."""
        program = f"""
from importlib import metadata
real = metadata.version
metadata.version = lambda name: {version!r} if name == "runpod" else real(name)
from embedding.serve.sdk import import_sdk
runpod = import_sdk()
import cpuinfo, paramiko
print(runpod.__version__, paramiko.RSAKey.__name__, cpuinfo.get_cpu_info.__module__)
"""
        assert run(program) == f"{version} RSAKey cpuinfo.cpuinfo\n"
