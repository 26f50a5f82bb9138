"""The worker's life under the SDK: stopped, killed, cancelled, spawned, and refused at the door."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import pytest

from embedding.contract.keys import Keyring
from embedding.contract.signatures import sign_v3
from embedding.model.weights import DEMO_PATH
from tests.serve.conftest import HANDLER, ROOT, WORKER


SECRET = "an-example-secret-of-at-least-32-bytes"


def without(*names, **others):
    """Return the worker's environment without *names*, and with *others*."""
    return {name: value for name, value in WORKER.items() if name not in names} | others


class TestStop:
    def test_sigterm_finishes_what_was_taken(self, slow_worker):
        """After SIGTERM every job that was taken is answered, then the worker leaves with 0."""
        platform, worker = slow_worker
        jobs = platform.submit_many([{"text": "one two"}, {"text": "one"}, {"text": "one two three"}])
        while any(platform.result(job).status == "IN_QUEUE" for job in jobs):
            time.sleep(0.02)
        worker.terminate()

        assert {result.status for result in platform.wait_all(jobs)} == {"COMPLETED"}
        assert worker.wait(20) == 0

    def test_killed_worker_loses_nothing(self, slow_worker):
        """A worker killed mid-job: its jobs are redelivered, and another gives each exactly one result."""
        platform, worker = slow_worker
        jobs = platform.submit_many([{"text": "one two"} for _ in range(3)])
        while any(platform.result(job).status == "IN_QUEUE" for job in jobs):
            time.sleep(0.02)
        worker.kill()
        with platform.worker(HANDLER, env=WORKER) as second:
            second.wait_ready(60)
            results = platform.wait_all(jobs, 60)

        assert {result.status for result in results} == {"COMPLETED"}
        assert [len(platform.record(job).results) for job in jobs] == [1, 1, 1]

    def test_cancel_of_a_running_job(self, slow_worker):
        """A job cancelled while it runs posts no result; the next job is served."""
        platform, worker = slow_worker
        running = platform.submit({"text": "one two three four five"})
        worker.wait_log("Started.")  # the SDK loses a cancel that comes before it has begun the job
        platform.cancel(running)
        worker.wait_log("Stopping job.")

        assert platform.run_sync({"text": ""}).status == "COMPLETED"
        assert platform.record(running).results == ()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_model_is_loaded_once_where_processes_are_spawned(platform, tmp_path, method):
    """The heartbeat process imports handler.py again, and loads no model."""
    customize = f"import multiprocessing; multiprocessing.set_start_method({method!r}, force=True)"
    (tmp_path / "sitecustomize.py").write_text(customize, encoding="utf-8")
    path = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    with platform.worker(HANDLER, env=WORKER | path) as worker:
        worker.wait_ready(60)
        assert platform.run_sync({"text": "x"}).status == "COMPLETED"
        deadline_s = time.monotonic() + 20
        while not platform.pings(worker.id) and time.monotonic() < deadline_s:
            time.sleep(0.05)

        assert platform.pings(worker.id)
        assert worker.log().count("fingerprint ") == 1


def test_signed_jobs_only(platform):
    """With a secret set, a signed job is served, an unsigned or altered one gets one and the same answer."""
    env = without("ALLOW_INSECURE_AUTH", EMBEDDING_HMAC_SECRET=SECRET)
    key = Keyring.parse(SECRET).newest
    with platform.worker(HANDLER, env=env) as worker:
        worker.wait_ready(60)
        signed = {"items": [{"text": "a"}, {"text": "b"}]}
        signed["auth"] = sign_v3(signed, key)
        altered = {**signed, "normalize": False}

        assert platform.run_sync(signed).output["errors"] == 0
        assert platform.run_sync({"action": "health"}).output["status"] == "ok"
        errors = {platform.run_sync(bad).error for bad in ({"text": "x"}, altered, {"text": "x", "auth": 5})}
        assert len(errors) == 1
        assert errors.pop().startswith("AUTH_FAILED: ")


def refused(env, prefix=()):
    """Start a worker that must refuse; return the one line that it says."""
    env = env | {"RUNPOD_WEBHOOK_GET_JOB": "http://127.0.0.1:9/job-take/$ID?x"}
    done = subprocess.run([*prefix, *HANDLER], env=env, capture_output=True, text=True, timeout=60)
    lines = done.stderr.splitlines()

    assert done.returncode == 1
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("✗ cannot start: ")
    return lines[0]


class TestRefusals:
    @pytest.mark.parametrize(
        ("env", "told"),
        [
            (without("ALLOW_INSECURE_AUTH"), "EMBEDDING_HMAC_SECRET is not set"),
            (without("ALLOW_INSECURE_AUTH", EMBEDDING_HMAC_SECRET="short"), "at least 32 bytes"),
            (without("ALLOW_DEMO_MODEL"), "no model is chosen"),
            (without(MAX_BATCH_SIZE="0"), "MAX_BATCH_SIZE"),
            (without(CLIP_MODEL_NAME="ViT-B-33", CLIP_PRETRAINED="openai"), "did you mean ViT-B-32"),
            (without(MODEL_PATH="nowhere"), "nowhere does not exist"),
        ],
        ids=["no secret", "short secret", "demo by accident", "bad limit", "unknown model", "wrong path"],
    )
    def test_one_plain_line_and_exit_1(self, env, told):
        """A serving worker that must not start says why in one line, and leaves with 1."""
        assert told in refused(env)

    def test_folder_without_config(self, tmp_path):
        """A folder without open_clip_config.json is named, with what is missing."""
        assert "has no open_clip_config.json" in refused(without(MODEL_PATH=str(tmp_path)))

    def test_weights_that_were_cut_short(self, tmp_path):
        """Weights that lost their end are damaged, not a traceback."""
        shutil.copytree(DEMO_PATH, tmp_path, dirs_exist_ok=True)
        os.truncate(tmp_path / "open_clip_model.safetensors", 1_000_000)

        assert "is damaged" in refused(without(MODEL_PATH=str(tmp_path)))

    def test_folder_that_may_not_be_read(self, tmp_path):
        """A folder that this user may not read is told as such; root, who may, is given no such right."""
        shutil.copytree(DEMO_PATH, tmp_path, dirs_exist_ok=True)
        (tmp_path / "open_clip_config.json").chmod(0)
        may_not = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []

        assert "check its permissions" in refused(without(MODEL_PATH=str(tmp_path)), prefix=may_not)


class TestLocalModes:
    """What the tests of the documents do not hold: they run the smoke test and the dry run that pass."""

    def test_folder_without_golden_vectors(self, tmp_path):
        """The smoke test claims agreement with open_clip only where golden vectors were compared."""
        shutil.copytree(DEMO_PATH, tmp_path, dirs_exist_ok=True)
        (tmp_path / "golden.json").unlink()
        done = run_local({"MODEL_PATH": str(tmp_path)})

        assert done.returncode == 0
        assert "✓ no golden.json in this folder: cosine " in done.stdout
        assert "open_clip" not in done.stdout.split("✓", 1)[1]

    def test_started_with_nothing(self, tmp_path):
        """RUNPOD_SERVERLESS=1 with neither queue nor test input runs the smoke test as well."""
        done = run_local({"RUNPOD_SERVERLESS": "1"}, cwd=tmp_path)

        assert done.returncode == 0
        assert done.stdout.endswith("smoke test passed\n")

    def test_failing_dry_run(self, tmp_path):
        """A job that fails in the dry run makes it exit 1, with the code in the log."""
        done = run_local({"RUNPOD_SERVERLESS": "1"}, "--test_input", '{"input": {"text": 5}}', cwd=tmp_path)

        assert done.returncode == 1
        assert "INVALID_INPUT: text: input should be a valid string" in done.stdout

    def test_smoke_test_that_fails(self):
        """A picture that cannot be had is a ✗ line and exit 1."""
        done = run_local({"SMOKE_TEST_IMAGE_URL": "http://127.0.0.1/x.jpg"})

        assert done.returncode == 1
        assert "✗ URL_REFUSED: " in done.stdout
        assert done.stdout.endswith("smoke test FAILED\n")


def run_local(env, *arguments, cwd=ROOT):
    """Run handler.py with *env* alone, outside any platform."""
    return subprocess.run(
        [sys.executable, str(ROOT / "handler.py"), *arguments],
        env={"PATH": "/usr/bin:/bin", "RUNPOD_LOG_LEVEL": "INFO", **env},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
