"""What a job is answered, from `input` to plain JSON, over a model with known answers."""

from __future__ import annotations

import asyncio
import json
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedding.contract.canonical import Signable
from embedding.contract.keys import Keyring
from embedding.contract.requests import ACTIONS
from embedding.contract.signatures import Verifier, sign_v2, sign_v3
from embedding.errors import (
    AuthFailed,
    BatchTooLarge,
    ModelMismatch,
    Overloaded,
    ResponseTooLarge,
    WorkerError,
)
from embedding.serve.queue import make_handler
from tests.contract.test_requests import JSON
from tests.fakes import DIM, FakeDownloads, FakeModel, fake_actions, png, png_base64


URL = "https://pictures.example/red.png"
KEYRING = Keyring.parse("an-example-secret-of-at-least-32-bytes")
KEY = KEYRING.newest


def run(actions, job_input, **job):
    """Return the answer to one job."""
    return asyncio.run(actions.run(job_input, **job))


class TestOrder:
    def test_results_stand_in_the_order_of_items(self):
        """Whatever ends first, results keep the order of their items, good and bad."""
        items = [
            {"text": "one", "request_id": "0"},
            {"image_base64": png_base64(), "request_id": "1"},
            {"image_url": URL, "request_id": "2"},
            {"text": "poison", "request_id": "3"},
            {"image_base64": "!", "request_id": "4"},
            "no item",
        ]
        answer = run(fake_actions(downloads=FakeDownloads({URL: png()})), {"items": items})

        assert [result["request_id"] for result in answer["results"]] == ["0", "1", "2", "3", "4", None]
        assert [result.get("error", {}).get("code") for result in answer["results"]] == [
            None,
            None,
            None,
            "INFERENCE_ERROR",
            "INVALID_INPUT",
            "INVALID_INPUT",
        ]
        assert answer["errors"] == 3

    def test_neighbours_do_not_change_a_vector(self):
        """An item's vector is the same alone, in company, and beside failures."""
        actions = fake_actions()
        alone = run(actions, {"image_base64": png_base64((10, 200, 30))})["embedding"]
        colours = [(10, 200, 30), (0, 0, 0), (255, 0, 0), (0, 0, 255)]
        items = [{"image_base64": png_base64(colour)} for colour in colours]
        results = run(actions, {"items": items})["results"]

        np.testing.assert_allclose(alone, results[0]["embedding"], atol=1e-6)
        assert ["error" in result for result in results] == [False, True, False, False]


class TestNormalize:
    @pytest.mark.parametrize(("normalize", "norm_is_one"), [(True, True), (False, False)])
    def test_norm_is_as_asked(self, normalize, norm_is_one):
        """`normalize` true gives norm 1; false gives the features as the model made them."""
        answer = run(fake_actions(), {"image_base64": png_base64(), "normalize": normalize})
        norm = float(np.linalg.norm(answer["embedding"]))

        assert answer["normalized"] is normalize
        assert (abs(norm - 1) < 1e-5) is norm_is_one


class TestDownloads:
    def test_equal_urls_are_fetched_once(self):
        """Five items with one URL cost one download, and each gets the vector."""
        downloads = FakeDownloads({URL: png()})
        answer = run(fake_actions(downloads=downloads), {"items": [{"image_url": URL}] * 5})

        assert downloads.asked == [URL]
        assert len({tuple(result["embedding"]) for result in answer["results"]}) == 1

    def test_failed_download_is_its_items_error(self):
        """A download that fails is told as retryable, in the place of each item that asked for it."""
        answer = run(fake_actions(), {"items": [{"image_url": URL}, {"text": "fine"}, {"image_url": URL}]})
        errors = [result.get("error") for result in answer["results"]]

        assert errors[1] is None
        assert errors[0] == errors[2]
        assert errors[0] == {
            "code": "DOWNLOAD_ERROR",
            "message": "the image could not be downloaded",
            "retryable": True,
        }


class TestLimits:
    @pytest.mark.parametrize(("count", "fits"), [(7, True), (8, True), (9, False)])
    def test_batch_size(self, count, fits):
        """MAX_BATCH_SIZE items are embedded, one more is refused."""
        job = {"texts": ["x"] * count}
        if fits:
            assert len(run(fake_actions(), job)["results"]) == count
        else:
            with pytest.raises(BatchTooLarge):
                run(fake_actions(), job)

    def test_hopeless_answer_is_refused_before_it_is_computed(self):
        """Where the vectors alone cannot fit, no forward is run."""
        model = FakeModel()
        with pytest.raises(ResponseTooLarge, match="8 vectors take"):
            run(fake_actions(model=model, max_response_bytes=8 * DIM * 16 - 1), {"texts": ["x"] * 8})

        assert model.batches == []

    def test_one_slow_item_costs_the_others_nothing(self):
        """At the deadline the items that are done are answered, and the late ones are OVERLOADED."""
        gate = threading.Event()
        downloads = FakeDownloads({URL: png()})
        downloads.fetch = lambda _url: gate.wait(10) and png()
        actions = fake_actions(downloads=downloads, job_timeout_s=0.5)
        answer = run(actions, {"items": [{"text": "a"}, {"image_url": URL}]})
        gate.set()

        assert [result.get("error", {}).get("code") for result in answer["results"]] == [None, "OVERLOADED"]

    def test_job_deadline(self):
        """A job that takes longer than TOTAL_REQUEST_TIMEOUT_S ends as OVERLOADED, to be tried again."""
        stuck = FakeModel()
        gate = threading.Event()
        stuck.embed_texts = lambda _tokens: gate.wait(10)
        with pytest.raises(Overloaded, match=r"longer than 0\.2 s"):
            run(fake_actions(model=stuck, job_timeout_s=0.2), {"text": "x"})
        gate.set()


class TestModelName:
    @pytest.mark.parametrize("name", ["served", "Fake", "Fake/none"])
    def test_own_names_are_accepted(self, name):
        """A caller may name what is served in any of its names."""
        assert run(fake_actions(), {"text": "x", "model": name})["model"] == "served"

    def test_other_names_are_refused(self):
        """Any other name is refused rather than answered with another model's vector."""
        with pytest.raises(ModelMismatch):
            run(fake_actions(), {"text": "x", "model": "ViT-L-14"})


class TestSignatures:
    def test_every_way_of_signing(self):
        """v3 over the whole job, v2 over a single item, and v2 on each item of a batch are accepted."""
        actions = fake_actions(verifier=Verifier(KEYRING), downloads=FakeDownloads({URL: png()}))
        whole = {"texts": ["a", "b"]}
        single = {"image_base64": png_base64(), "auth": sign_v2(Signable(image_bytes=png()), KEY)}
        url = {"image_url": URL, "auth": sign_v2(Signable(image_url=URL), KEY)}
        items = [
            {"text": "a", "auth": sign_v2(Signable(text="a", in_batch=True), KEY)},
            {"image_url": URL, "auth": sign_v2(Signable(image_url=URL, in_batch=True), KEY)},
        ]

        openai = {"openai_route": "/v1/embeddings", "openai_input": {"input": "x"}}
        inside = {**openai, "openai_input": {"input": "x", "auth": sign_v3(openai, KEY)}}

        assert run(actions, {**whole, "auth": sign_v3(whole, KEY)}, job_id="1")["errors"] == 0
        assert run(actions, inside, job_id="2")[0]["data"][0]["index"] == 0
        assert run(actions, single)["dim"] == DIM
        assert run(actions, url)["dim"] == DIM
        assert run(actions, {"items": items})["errors"] == 0

    @pytest.mark.parametrize(
        "job_input",
        [
            {"text": "x"},
            {"text": "x", "auth": None},
            {"text": "x", "auth": {"ts": 1, "sig": "0" * 64}},
            {"texts": ["x"]},
            {"texts": ["x"], "auth": sign_v2(Signable(text="x"), KEY)},
            {"items": [{"text": "x"}], "auth": sign_v2(Signable(text="x"), KEY)},
            {"openai_route": "/v1/embeddings", "openai_input": {"input": "x"}},
            {"openai_route": "/v1/embeddings", "openai_input": {"input": "x", "auth": {"v": 3}}},
        ],
    )
    def test_unsigned_jobs_are_refused(self, job_input):
        """Whatever the signature should have covered, without it nothing is embedded."""
        model = FakeModel()
        with pytest.raises(AuthFailed):
            run(fake_actions(model=model, verifier=Verifier(KEYRING)), job_input)

        assert model.batches == []

    def test_bad_signature_fails_its_item_only(self):
        """One item with a wrong signature is refused alone, before anything is fetched for it."""
        downloads = FakeDownloads({URL: png()})
        good = {"text": "a", "auth": sign_v2(Signable(text="a", in_batch=True), KEY)}
        bad = {"image_url": URL, "auth": sign_v2(Signable(image_url=URL + "?", in_batch=True), KEY)}
        answer = run(fake_actions(verifier=Verifier(KEYRING), downloads=downloads), {"items": [good, bad]})

        assert [result.get("error", {}).get("code") for result in answer["results"]] == [None, "AUTH_FAILED"]
        assert downloads.asked == []

    def test_health_needs_no_signature(self):
        """`health` embeds nothing and is answered to anyone who reaches the worker."""
        assert run(fake_actions(verifier=Verifier(KEYRING)), {"action": "health"})["status"] == "ok"

    def test_long_signature_holds_up_nobody(self):
        """While the signature of a job of many megabytes is judged, the event loop goes on."""
        job = {"texts": ["\u20ac\n" * 40_000] * 8}
        job["auth"] = sign_v3(job, KEY)
        actions = fake_actions(verifier=Verifier(KEYRING))

        async def scenario():
            asked = asyncio.ensure_future(actions.run(job, job_id="1"))
            while actions._counters["items"] == 0:
                turns.append(await asyncio.sleep(0))
            return await asked

        turns = []
        assert len(asyncio.run(scenario())["results"]) == 8
        assert len(turns) > 10


FIELDS = st.sampled_from(
    ["action", "text", "texts", "items", "image_url", "image_base64", "openai_route", "auth"]
)


class TestForeseenByNobody:
    @pytest.mark.parametrize(
        "fault",
        [
            KeyError("secret of /root/worker"),
            MemoryError(),
            RecursionError(),
            BufferError(),
            AssertionError(),
            StopIteration(),
            StopAsyncIteration(),
            TimeoutError(),
        ],
        ids=lambda fault: type(fault).__name__,
    )
    def test_decoder_that_raises_anything(self, monkeypatch, fault):
        """Its item is INTERNAL_ERROR, without a word of the fault; its neighbours are served."""

        def decode_image(_data, **_options):
            raise fault

        monkeypatch.setattr("embedding.pipeline.decode_image", decode_image)
        job = {"items": [{"text": "before"}, {"image_base64": png_base64()}, {"text": "after"}]}
        answer = run(fake_actions(job_timeout_s=5.0), job)
        codes = [result.get("error", {}).get("code") for result in answer["results"]]

        assert codes == [None, "INTERNAL_ERROR", None]
        assert "secret" not in json.dumps(answer)


class TestProperties:
    @given(job_input=JSON | st.dictionaries(FIELDS, JSON | st.sampled_from(ACTIONS)))
    def test_any_json_is_answered_with_json(self, job_input):
        """The handler never raises, and what it returns is JSON that UTF-8 can carry."""
        answer = asyncio.run(HANDLER({"id": "any", "input": job_input}))

        json.dumps(answer, allow_nan=False, ensure_ascii=False).encode()
        assert "error" not in answer or isinstance(answer["error"], str)

    @given(
        texts=st.lists(st.text(max_size=20) | st.none() | st.integers(), min_size=1, max_size=8),
    )
    def test_order_and_norm_hold_for_any_texts(self, texts):
        """Each text gets its own vector of norm 1 in its place; what is no text gets an error there."""
        answer = asyncio.run(HANDLER({"input": {"texts": texts}}))

        assert len(answer["results"]) == len(texts)
        for text, result in zip(texts, answer["results"], strict=True):
            if isinstance(text, str):
                alone = asyncio.run(HANDLER({"input": {"text": text}}))
                np.testing.assert_allclose(result["embedding"], alone["embedding"], atol=1e-5)
                assert abs(float(np.linalg.norm(result["embedding"])) - 1) <= 1e-5
            else:
                assert result["error"]["code"] == "INVALID_INPUT"

    def test_lost_device_asks_for_a_fresh_worker(self):
        """Once the device has failed for good, every answer carries the wish to be replaced."""
        model = FakeModel()

        def embed_texts(_tokens):
            raise torch.AcceleratorError("CUDA error: device-side assert triggered")

        model.embed_texts = embed_texts
        actions = fake_actions(model=model)
        jobs = ({"text": "x"}, {"texts": ["x"]}, {"action": "health"})
        answers = [asyncio.run(make_handler(actions)({"input": job})) for job in jobs]

        assert [answer["refresh_worker"] for answer in answers] == [True, True, True]
        assert run(actions, {"action": "health"})["status"] == "failed"

    def test_fault_of_our_own_tells_nothing(self):
        """An exception nobody foresaw becomes INTERNAL_ERROR, with nothing of its text."""

        class Broken:
            def is_healthy(self):
                return True

            async def run(self, *_args, **_kwargs):
                msg = "secret of /root/worker"
                raise KeyError(msg)

        answer = asyncio.run(make_handler(Broken())({"id": "1", "input": {"request_id": "r"}}))

        assert answer["error_code"] == "INTERNAL_ERROR"
        assert answer["request_id"] == "r"
        assert "secret" not in answer["error"]


HANDLER = make_handler(fake_actions())


def test_every_error_has_its_own_stable_code():
    """Callers store codes; there are thirteen, and they never change."""

    def leaves(kind):
        return {kind.code} | {code for sub in kind.__subclasses__() for code in leaves(sub)}

    assert leaves(WorkerError) == {
        "INVALID_INPUT",
        "AUTH_FAILED",
        "MODEL_MISMATCH",
        "BATCH_TOO_LARGE",
        "DOWNLOAD_ERROR",
        "URL_REFUSED",
        "IMAGE_TOO_LARGE",
        "DECODE_ERROR",
        "TEXT_TOO_LONG",
        "RESPONSE_TOO_LARGE",
        "OVERLOADED",
        "INFERENCE_ERROR",
        "INTERNAL_ERROR",
    }
