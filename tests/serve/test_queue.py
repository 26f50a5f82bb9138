"""The worker as RunPod runs it: handler.py under the SDK, by both job loops, against a loopback platform."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import runpod

from embedding.contract.encoding import decode
from scripts.demo_model.vocabulary import SHAPES


@pytest.fixture(scope="module", autouse=True)
def _worker(worker):
    """Every test of this module shares one worker."""


def succeed(platform, job_input):
    """Return the output of a job that must complete."""
    result = platform.run_sync(job_input)
    assert result.status == "COMPLETED", result
    return result.output


@pytest.mark.skipif(sys.platform != "linux", reason="a policy of Linux")
def test_no_thread_takes_a_core_by_waking_up(worker):
    """All threads of a worker run by the kernel's policy for batch work, which changes no priority."""
    threads = [int(path.name) for path in Path(f"/proc/{worker.pid}/task").iterdir()]

    assert len(threads) > 3
    assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_BATCH}


class TestActions:
    def test_image(self, platform, picture):
        """One picture gives one vector of norm 1, and says what made it and where the time went."""
        output = succeed(platform, {"image_base64": picture, "request_id": "one"})

        assert output["request_id"] == "one"
        assert len(output["embedding"]) == output["dim"] == 512
        assert abs(np.linalg.norm(output["embedding"]) - 1) <= 1e-5
        assert output["normalized"] is True
        assert {"model", "model_name", "pretrained", "device", "fingerprint"} <= set(output)
        assert set(output["timings"]) == {
            "download_ms",
            "decode_ms",
            "queue_ms",
            "inference_ms",
            "total_ms",
        }

    def test_data_uri_is_the_same_picture(self, platform, picture):
        """A data URI and plain base64 give equal vectors."""
        plain = succeed(platform, {"image_base64": picture})
        uri = succeed(platform, {"image_base64": f"data:image/jpeg;base64,{picture}"})

        np.testing.assert_allclose(plain["embedding"], uri["embedding"], atol=1e-6)

    def test_text(self, platform):
        """One text gives one vector, its number of tokens, and whether it was cut."""
        output = succeed(platform, {"text": "a red circle"})

        assert (output["tokens"], output["truncated"]) == (5, False)

    def test_long_text(self, platform):
        """77 tokens are read: a longer text is cut and says so, or refused if it may not be cut."""
        words = "circle " * 100
        cut = succeed(platform, {"text": words})
        refused = platform.run_sync({"text": words, "truncate": False})

        assert (cut["tokens"], cut["truncated"]) == (77, True)
        assert refused.error == "TEXT_TOO_LONG: text has 102 tokens; the limit is 77"

    def test_texts_keep_their_order(self, platform):
        """A list of texts gives results in the same order, equal to each alone."""
        texts = ["a red circle", "a blue square", "a green star"]
        together = succeed(platform, {"texts": texts})["results"]

        for text, result in zip(texts, together, strict=True):
            alone = succeed(platform, {"text": text})
            np.testing.assert_allclose(result["embedding"], alone["embedding"], atol=1e-5)

    def test_batch_mixes_and_isolates(self, platform, picture):
        """Pictures, texts and bad items share a batch; each bad one is an error in its place."""
        output = succeed(
            platform,
            {
                "request_id": "mixed",
                "items": [
                    {"text": "a red circle", "request_id": "t"},
                    {"image_base64": "QUJD", "request_id": "bad"},
                    {"image_base64": picture},
                    {"image_url": "https://169.254.169.254/latest"},
                    {},
                ],
            },
        )
        codes = [result.get("error", {}).get("code") for result in output["results"]]

        assert codes == [None, "DECODE_ERROR", None, "URL_REFUSED", "INVALID_INPUT"]
        assert (output["request_id"], output["errors"]) == ("mixed", 3)
        assert [result["request_id"] for result in output["results"]][:2] == ["t", "bad"]
        assert "total_ms" in output["batch_timings"]

    def test_base64_float16(self, platform):
        """The compact form holds the same vector in a tenth of the bytes."""
        plain = succeed(platform, {"text": "a red circle"})["embedding"]
        output = succeed(
            platform, {"text": "a red circle", "encoding_format": "base64", "embed_dtype": "float16"}
        )

        np.testing.assert_allclose(decode(output["embedding"], "float16"), plain, atol=1e-3)

    def test_health(self, platform):
        """`health` names model, device, versions and identity, and counts."""
        output = succeed(platform, {"action": "health"})

        assert output["status"] == "ok"
        assert output["identity"]["imageDigestSource"] == "none"
        assert {"torch", "runpod", "worker"} <= set(output["versions"])
        assert output["uptime_s"] > 0
        assert output["counters"]["jobs"] >= 1

    def test_wrong_model_is_refused(self, platform):
        """A caller who names another model is told which one is served."""
        result = platform.run_sync({"text": "x", "model": "ViT-L-14"})

        assert result.status == "FAILED"
        assert result.error.startswith("MODEL_MISMATCH: model: this worker serves ")

    def test_meaning(self, platform, picture):
        """Through the whole stack, 'a red circle' is the text nearest to a picture of one."""
        texts = ["a blue square", "a green star", "a red circle", "a red square", "a blue circle"]
        image = succeed(platform, {"image_base64": picture})["embedding"]
        results = succeed(platform, {"texts": texts})["results"]
        cosines = [np.dot(image, result["embedding"]) for result in results]

        assert texts[int(np.argmax(cosines))] == "a red circle"


class TestOpenAI:
    def test_embeddings(self, platform):
        """The passthrough answers as OpenAI does, unwrapped by the platform from a list of one."""
        result = platform.run_sync(
            {"openai_route": "/v1/embeddings", "openai_input": {"input": ["a cat", "a dog"], "model": None}}
        )
        body = result.output[0]

        assert [entry["index"] for entry in body["data"]] == [0, 1]
        assert len(body["data"][0]["embedding"]) == 512
        assert body["usage"] == {"prompt_tokens": 8, "total_tokens": 8}

    def test_models(self, platform):
        """The bare route lists the one served model."""
        output = succeed(platform, {"openai_route": "/v1/models"})

        assert [model["object"] for model in output[0]["data"]] == ["model"]

    def test_bad_entry_fails_the_request(self, platform):
        """OpenAI's form has no per-entry errors: the first bad entry is named."""
        result = platform.run_sync(
            {"openai_route": "/v1/embeddings", "openai_input": {"input": ["a", "data:image/png;base64,QUJD"]}}
        )

        assert result.status == "FAILED"
        assert result.error.startswith("DECODE_ERROR: input[1]: ")


class TestFailures:
    @pytest.mark.parametrize("document", [{"id": "null", "input": None}, {"id": "absent"}])
    def test_input_null_or_absent(self, platform, document):
        """A job without input fails with a sentence; the worker lives on."""
        # A single take without `input` is dropped by the SDK itself, so it travels in a batch, as in service.
        platform.inject(document)
        result = platform.wait(document["id"])

        assert result.error.startswith("INVALID_INPUT: the input must be a JSON object")
        succeed(platform, {"text": "still here"})

    def test_failure_carries_code_and_request_id(self, platform):
        """A failed job's error is a string with its code, and the output names the request."""
        result = platform.run_sync({"text": 5, "request_id": "mine"})

        assert result.status == "FAILED"
        assert result.error == "INVALID_INPUT: text: input should be a valid string"
        assert result.output == {"error_code": "INVALID_INPUT", "retryable": False, "request_id": "mine"}

    def test_duplicate_delivery(self, platform):
        """A job delivered twice is answered with equal vectors both times."""
        job_id = platform.submit({"text": "twice"})
        platform.wait(job_id)
        platform.duplicate(job_id)
        deadline_s = time.monotonic() + 10
        while len(platform.record(job_id).results) == 1 and time.monotonic() < deadline_s:
            time.sleep(0.02)
        bodies = [posted.body for posted in platform.record(job_id).results]

        vectors = np.array([body["output"]["embedding"] for body in bodies])

        assert len(bodies) == 2
        assert np.abs(vectors - vectors[0]).max() <= 1e-6

    def test_text_that_utf8_cannot_carry(self, platform):
        """A lone surrogate is refused, and what it echoes can still be posted."""
        result = platform.run_sync({"text": "\ud800", "request_id": "\udfff"})

        assert result.error.startswith("INVALID_INPUT: ")
        assert result.output["request_id"] is None


class TestLoad:
    def test_64_concurrent_callers(self, platform, picture):
        """64 jobs at once, half pictures and half texts, each get their own vector."""
        shapes = itertools.product(("red", "green", "blue", "pink"), list(SHAPES))
        inputs = [{"text": f"a {colour} {shape}"} for colour, shape in shapes]
        inputs = [job for text in inputs for job in (text, {"image_base64": picture})]
        results = platform.wait_all(platform.submit_many(inputs), 60)
        texts = {tuple(result.output["embedding"]) for result in results[::2]}
        pictures = np.array([result.output["embedding"] for result in results[1::2]])

        assert {result.status for result in results} == {"COMPLETED"}
        assert len(texts) == 32
        assert np.abs(pictures - pictures[0]).max() <= 1e-5

    def test_cancel_of_a_queued_job(self, platform, worker):
        """A job cancelled before a worker takes it never runs; its neighbours do."""
        worker.signal(signal.SIGSTOP)
        platform.fail("job-take", 500, times=1)  # the poll that is held, or on its way
        cancelled, kept = platform.submit_many([{"text": "no"}, {"text": "yes"}])
        platform.cancel(cancelled)
        worker.signal(signal.SIGCONT)

        assert platform.wait(kept).status == "COMPLETED"
        assert platform.result(cancelled).status == "CANCELLED"
        assert platform.record(cancelled).takes == ()


class TestCallers:
    def test_sdk_endpoint(self, platform, monkeypatch):
        """The SDK's own client runs a job, sees it done and reads the worker's health."""
        monkeypatch.setattr(runpod, "endpoint_url_base", platform.base_url)
        monkeypatch.setattr(runpod, "api_key", platform.api_key)
        endpoint = runpod.Endpoint(platform.endpoint_id)

        assert len(endpoint.run_sync({"text": "a red circle"}, timeout=30)["embedding"]) == 512
        job = endpoint.run({"text": "a blue square"})
        assert job.output(timeout=30)["dim"] == 512
        assert endpoint.health()["workers"]["idle"] + endpoint.health()["workers"]["running"] >= 1
