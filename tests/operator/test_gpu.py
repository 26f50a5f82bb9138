"""`gpu_info` runs nvidia-smi, within bounds, and says so where there is none."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from pathlib import Path

import pytest

from embedding.contract.operator import GpuInfoRequest
from embedding.errors import InvalidInput, Overloaded
from embedding.operator import child
from embedding.operator.gpu import MAX_OUTPUT_BYTES, NO_GPU, gpu_info
from embedding.operator.operator import Operator, OperatorTerms


@pytest.fixture
def nvidia_smi(tmp_path):
    """Return what writes an executable of that name and gives the environment that finds it."""

    def write(script):
        file = tmp_path / "nvidia-smi"
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        return {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    return write


def test_its_text(nvidia_smi):
    """What it prints is the answer, with the request's id."""
    environment = nvidia_smi("echo 'NVIDIA H100'; printf '\\377'; echo warned >&2")
    operator = Operator(OperatorTerms(True, (), (), None, environment))
    request = _request(request_id="r")

    assert asyncio.run(operator.run(request, None)) == {
        "request_id": "r",
        "gpu_info": "NVIDIA H100\n\\xffwarned\n",
    }


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_length(nvidia_smi, more):
    """It is cut at 64 KiB, and what follows is read, so that it can end."""
    environment = nvidia_smi(f"head -c {MAX_OUTPUT_BYTES + more} /dev/zero | tr '\\0' x")

    assert len(asyncio.run(gpu_info(environment))) == min(MAX_OUTPUT_BYTES + more, MAX_OUTPUT_BYTES)


def test_none(tmp_path):
    """A machine without it is said to have none."""
    with pytest.raises(InvalidInput, match=NO_GPU):
        asyncio.run(gpu_info({"PATH": str(tmp_path)}))


def test_one_that_fails(nvidia_smi):
    """So is one whose driver does not answer, without a word of what it printed."""
    with pytest.raises(InvalidInput, match=f"{NO_GPU} that works: it ended with status 9"):
        asyncio.run(gpu_info(nvidia_smi("echo secret; exit 9")))


def test_one_that_hangs(nvidia_smi, tmp_path):
    """It is killed when its time is over."""
    environment = nvidia_smi(f"echo $$ > {tmp_path / 'pid'}; exec sleep 60")
    started_s = time.monotonic()

    with pytest.raises(Overloaded, match=r"nvidia-smi did not end within 0\.5 s"):
        asyncio.run(gpu_info(environment, timeout_s=0.5))
    assert time.monotonic() - started_s < 5
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize("script", ["sleep 60; true", "sleep 60 & exit 0", "sleep 60 & exec yes"])
def test_what_it_starts(nvidia_smi, tmp_path, script):
    """A process that it started, and that holds its output, ends with it and holds up nobody."""
    environment = nvidia_smi(f"echo $$ > {tmp_path / 'group'}; {script}")
    started_s = time.monotonic()

    with pytest.raises(Overloaded):
        asyncio.run(gpu_info(environment, timeout_s=0.3))
    assert time.monotonic() - started_s < 2
    group = int((tmp_path / "group").read_text())
    while _lives(group) and time.monotonic() - started_s < 5:  # one that is killed takes a moment to go
        time.sleep(0.01)
    assert not _lives(group)


def test_one_that_cannot_be_killed(nvidia_smi, monkeypatch):
    """One that the system does not let go is left to itself after a while."""
    monkeypatch.setattr(child, "LAST_S", 0.2)
    monkeypatch.setattr(child.os, "killpg", lambda *_: None)

    async def scenario():
        started_s = time.monotonic()
        with pytest.raises(Overloaded):
            await gpu_info(nvidia_smi("exec sleep 1"), timeout_s=0.1)
        assert time.monotonic() - started_s < 0.9
        await asyncio.sleep(1)  # it ends by itself

    asyncio.run(scenario())


def test_asked_by_many_at_once(nvidia_smi, tmp_path):
    """It runs once for all who ask meanwhile, though the first of them leaves."""
    environment = nvidia_smi(f"echo x >> {tmp_path / 'runs'}; sleep 0.3")
    operator = Operator(OperatorTerms(True, (), (), None, environment))

    async def scenario():
        asked = [asyncio.ensure_future(operator.run(_request(), None)) for _ in range(9)]
        await asyncio.sleep(0.1)
        asked[0].cancel()
        await asyncio.gather(*asked[1:])
        await operator.run(_request(), None)

    asyncio.run(scenario())
    assert (tmp_path / "runs").read_text() == "x\nx\n"


def _lives(group):
    """Whether any process of *group* runs; the dead may not have been collected yet."""
    states = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            states += [fields[0]] if int(fields[2]) == group else []
    return any(state != "Z" for state in states)


def _request(**fields):
    return GpuInfoRequest(action="gpu_info", **fields)
