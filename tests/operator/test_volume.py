"""From the hub onto a volume and from there to vectors: real workers under the SDK, a real client of the hub.

One story, told once: a worker that downloads is killed half-way, the platform gives its job to another, a
third process wants the same model meanwhile, and at last, with the hub gone, a fresh worker serves it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from embedding.contract.keys import Key
from embedding.contract.operator import ModelName
from embedding.contract.signatures import sign_v3
from embedding.errors import DownloadError, InvalidInput, Overloaded
from embedding.model.folder import WEIGHTS_NAME
from embedding.operator.downloads import END_S, STOPPING, Downloads
from tests.loopback import JobRecord, LoopbackRunPod
from tests.model.folders import NO_OPEN_CLIP, open_clip
from tests.model.hub import Hub, running_hub
from tests.serve.conftest import HANDLER, ROOT, WORKER


if open_clip is None:
    pytest.skip(NO_OPEN_CLIP, allow_module_level=True)

from tests.operator.models import TEXT, picture, vectors, write_model


if TYPE_CHECKING:
    from pathlib import Path

SECRET = "s" * 32
REPO = "hf-hub:org/name"
MODEL = ModelName(model=REPO)
CUT_AT = 31_500_000  # beyond the half, and three times what huggingface_hub reads at once


@dataclass(slots=True)
class Story:
    """What happened."""

    files: dict[str, bytes]
    hub: Hub
    killed: JobRecord
    finished: JobRecord
    again: JobRecord
    stopped: JobRecord
    other: list[dict[str, Any]]
    folder: Path
    vectors: list[list[float]] = field(default_factory=list)


def signed(job_input):
    """Return the input with a signature that covers it."""
    return {**job_input, "auth": sign_v3(job_input, Key("default", SECRET.encode()))}


def settings(root, hub, **more):
    """Return the environment of a worker with *root* on its volume."""
    return {name: value for name, value in WORKER.items() if name != "ALLOW_INSECURE_AUTH"} | {
        "EMBEDDING_HMAC_SECRET": SECRET,
        "MODEL_ROOTS": f"/models,{root}",
        "HF_ENDPOINT": hub.address,
        **more,
    }


def other_process(root, hub):
    """Start the command line for the same model, as a worker elsewhere would."""
    return subprocess.Popen(
        [sys.executable, "-m", "embedding", "download", "--json", f"--model={REPO}", f"--root={root}"],
        env={**os.environ, "HF_ENDPOINT": hub.address, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """Let it all happen."""
    folder, volume = tmp_path_factory.mktemp("random"), tmp_path_factory.mktemp("volume")
    root = volume / "models"
    with LoopbackRunPod(hold_s=1.0) as platform, running_hub() as hub:
        hub.files = write_model(folder)
        hub.holds_at = CUT_AT
        job = platform.submit(signed({"action": "download_models", "models": [REPO], "request_id": "d"}))
        with platform.worker(HANDLER, env=settings(root, hub)) as worker:
            assert hub.held.wait(60), worker.tail()
            half = len(hub.files[WEIGHTS_NAME]) / 2
            wait_for(lambda: any(part.stat().st_size > half for part in root.rglob("*.part")))
            worker.kill()
        killed = platform.record(job)
        hub.held.clear()
        hub.holds_at = 1_000_000
        with platform.worker(HANDLER, env=settings(root, hub)) as worker:
            assert hub.held.wait(60), worker.tail()
            with other_process(root, hub) as process:
                other = [json.loads(process.stdout.readline())]
                hub.go_on.set()
                platform.wait(job, 60)
                other += [json.loads(line) for line in process.stdout]
            finished = platform.record(job)
            platform.fail("job-done", 500)  # the first update has to be sent again, two seconds later
            again = platform.submit(signed({"action": "download_models", "models": [REPO]}))
            platform.wait(again)
            sent, hub.sent = hub.sent, []
            stopped = stop_at_work(platform, worker, hub, root)
            hub.sent = sent
            told = Story(hub.files, hub, killed, finished, platform.record(again), stopped, other, folder)
        hub.shutdown()
        hub.server_close()
        offline = settings(root, hub, CLIP_MODEL_NAME=REPO, HF_HUB_OFFLINE="1", ALLOW_DEMO_MODEL="0")
        with platform.worker(HANDLER, env=offline) as worker:
            image = base64.b64encode(picture()).decode()
            jobs = [
                signed({"items": [{"image_base64": image}, {"text": TEXT}]}),
                {"action": "health", "check": True},
            ]
            batch, health = (platform.run_sync(job) for job in jobs)
            assert health.output["check"]["passed"], worker.tail()
            told.vectors = [result["embedding"] for result in batch.output["results"]]
        yield told


def stop_at_work(platform, worker, hub, root):
    """Stop the worker amid a download of what is there no more, and put it back."""
    (root / "org--name").rename(root / "aside")
    hub.held.clear()
    hub.go_on.clear()
    job = platform.submit(signed({"action": "download_models", "models": [REPO]}))
    assert hub.held.wait(60), worker.tail()
    worker.terminate()
    platform.wait(job, 10)
    assert worker.wait() == 0
    (root / "aside").rename(root / "org--name")
    return platform.record(job)


def wait_for(condition, timeout_s=10):
    """Return when *condition* holds."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


class TestStory:
    def test_the_first_half_came_once(self, story):
        """The second worker asks the hub for the rest alone: nothing of the first half was sent again."""
        first, second = story.hub.sent_of(WEIGHTS_NAME)
        size = len(story.files[WEIGHTS_NAME])

        assert (first.start, first.count) == (0, CUT_AT)
        assert second.start >= size / 2
        assert second.count == size - second.start

    def test_one_transfer_for_all_who_want_it(self, story):
        """The process that came meanwhile waits, and then finds the model there."""
        assert story.other[0]["phase"] == "waiting"
        assert [line["event"] for line in story.other[-1:]] == ["done"]
        assert (story.other[-1]["status"], story.other[-1]["fetched_bytes"]) == ("present", 0)
        assert story.finished.results[0].body["output"]["models"][0]["status"] == "downloaded"

    def test_the_answer(self, story):
        """The job that two workers had is answered once, with what came now and what was there."""
        (result,) = story.finished.results
        output = result.body["output"]
        (model,) = output["models"]
        size = sum(map(len, story.files.values()))

        assert (story.finished.status, story.killed.results) == ("COMPLETED", ())
        assert (output["request_id"], output["status"]) == ("d", "ok")
        assert (model["model"], model["pretrained"], model["folder"]) == (REPO, "", "org--name")
        assert model["fetched_bytes"] + model["resumed_bytes"] == size
        assert output["total_bytes"] == model["size_bytes"] > size / 3

    def test_progress_is_told_in_order(self, story):
        """The platform hears of each phase as it begins, of ever more bytes, of nothing after the result."""
        before = len(story.killed.progress)
        told = story.finished.progress[before:]

        assert story.killed.progress[0]["phase"] == "downloading"
        phases = list(dict.fromkeys(each["phase"] for each in told))
        assert phases[phases[0] == "waiting" :] == ["downloading", "preparing"]  # for the killed one's lease
        done = [each["done_bytes"] for each in told]
        assert done == sorted(done) and done[-1] == told[-1]["total_bytes"] > 0
        assert told[0].keys() == {"model", "index", "count", "phase", "done_bytes", "total_bytes"}
        assert story.finished.late_progress == ()

    def test_no_update_is_late(self, story):
        """An update that the platform takes at the second try only comes before the result all the same."""
        assert [each["phase"] for each in story.again.progress] == ["verifying"]
        assert story.again.late_progress == ()
        assert story.again.results[0].body["output"]["models"][0]["status"] == "present"

    def test_a_worker_that_stops(self, story):
        """SIGTERM ends a download, and its job is told to come again."""
        (result,) = story.stopped.results

        assert result.body["error"] == f"OVERLOADED: {STOPPING}"

    def test_vectors(self, story):
        """Served by name from the volume alone, it gives open_clip's vectors, up to storing them in fp16."""
        for served, expected in zip(story.vectors, vectors(story.folder), strict=True):
            assert np.dot(served, expected) >= 0.9995


def collect(told):
    """Return what takes reports into the list *told*."""

    async def report(each):
        told.append(each)

    return report


class TestProcess:
    """The process that works for a job."""

    @pytest.fixture
    def hub(self):
        """A hub that holds on after a while."""
        with running_hub() as hub:
            hub.files = {"open_clip_config.json": b"{}", WEIGHTS_NAME: bytes(30_000_000)}
            hub.holds_at = 1_000_000
            yield hub

    @pytest.fixture
    def downloads(self, hub, tmp_path):
        """Downloads to a volume."""
        return Downloads(tmp_path / "models", {**os.environ, "HF_ENDPOINT": hub.address})

    def test_ends_with_its_job(self, hub, downloads, tmp_path):
        """A job that is cancelled ends it, and lets go of the model; meanwhile no other job may begin."""

        async def scenario():
            job = asyncio.ensure_future(downloads.run([MODEL], None))
            await asyncio.to_thread(hub.held.wait, 60)
            with pytest.raises(Overloaded, match="another job downloads models on this worker"):
                await downloads.run([MODEL, MODEL], None)
            job.cancel()
            await asyncio.wait([job])
            assert job.cancelled()

        asyncio.run(scenario())
        assert not (tmp_path / "models/.download/leases/org--name").exists()
        assert list((tmp_path / "models").rglob("*.part"))

    def test_wanted_twice(self, hub, downloads):
        """A job that asks for the same gets the same answer, and no report of its own, nor one after it."""
        hub.altered[WEIGHTS_NAME] = b"x" * 30_000_000
        told, other = [], []

        async def scenario():
            jobs = [asyncio.ensure_future(downloads.run([MODEL], collect(each))) for each in (told, other)]
            await asyncio.to_thread(hub.held.wait, 60)
            hub.go_on.set()
            faults = await asyncio.gather(*jobs, return_exceptions=True)
            count = len(told)
            await asyncio.sleep(0.2)
            assert len(told) == count
            return faults

        first, second = asyncio.run(scenario())
        assert isinstance(first, DownloadError) and second is first
        assert told and not other

    def test_the_worker_stops(self, hub, downloads):
        """A worker that stops ends the download and says so to all who wait, and begins no other."""

        async def scenario():
            jobs = [asyncio.ensure_future(downloads.run([MODEL], None)) for _ in range(2)]
            await asyncio.to_thread(hub.held.wait, 60)
            downloads.stop()
            faults = await asyncio.gather(*jobs, downloads.run([MODEL], None), return_exceptions=True)
            assert [(type(each), each.message) for each in faults] == [(Overloaded, STOPPING)] * 3

        started_s = time.monotonic()
        asyncio.run(scenario())
        assert time.monotonic() - started_s < END_S

    @pytest.mark.parametrize(
        "script",
        [
            "echo a library prints; echo 5",
            "head -c 70000 /dev/zero; echo",
            'printf \'{"event":"progr\'; kill -9 $$',
        ],
        ids=["words", "a long line", "a line cut off"],
    )
    def test_what_is_no_line_of_it(self, downloads, monkeypatch, tmp_path, script):
        """Whatever else stands among its lines is passed over."""
        stub = tmp_path / "python"
        stub.write_text(f"#!/bin/sh\n{script}\n")
        stub.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(stub))
        with pytest.raises(DownloadError, match="ended unexpectedly"):
            asyncio.run(downloads.run([MODEL], None))

    def test_ends_in_time(self, downloads):
        """One that is out of time is told so, and the next may begin."""
        for _ in range(2):
            with pytest.raises(Overloaded, match=r"the downloads took longer than 0\.1 s; what came is kept"):
                asyncio.run(downloads.run([MODEL], None, timeout_s=0.1))

    def test_faults(self, hub, downloads):
        """What fails is told with the model's place in the list, under its code, without an address."""
        hub.refusal = 404, {"X-Error-Code": "RepoNotFound"}
        with pytest.raises(DownloadError) as fault:
            asyncio.run(downloads.run([MODEL], None))
        told = "models[0] (hf-hub:org/name): org/name does not exist on the hub, or HF_TOKEN may not read it"
        assert (fault.value.message, fault.value.retryable) == (told, False)

        unknown = ModelName(model="ViT-B-33", pretrained="openai")
        with pytest.raises(
            InvalidInput, match=r"^models\[0\] \(ViT-B-33/openai\): ViT-B-33 is not a model of ope"
        ):
            asyncio.run(downloads.run([unknown], None))

    def test_dies(self, downloads, monkeypatch):
        """One that ends without a word is told so."""
        monkeypatch.setattr(sys, "executable", "/bin/true")
        with pytest.raises(DownloadError, match="ended unexpectedly") as fault:
            asyncio.run(downloads.run([MODEL], None))
        assert fault.value.retryable
