"""What each answer holds, field by field, and when its size is measured."""

from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np
import pytest

from embedding.contract.encoding import max_encoded_bytes
from embedding.contract.requests import parse
from embedding.contract.responses import (
    Embedded,
    Served,
    Timings,
    check_size_after,
    check_size_before,
    embedding_json,
    failure_json,
    results_json,
)
from embedding.errors import InvalidInput, ResponseTooLarge


SERVED = Served("served", "ViT-B-32", "openai", "cpu", "0123456789abcdef", 2)
TOLD_OF_THE_MODEL = {
    "model": "served",
    "model_name": "ViT-B-32",
    "pretrained": "openai",
    "device": "cpu",
    "fingerprint": "0123456789abcdef",
    "dim": 2,
}
NO_TIME = dict.fromkeys(("download_ms", "decode_ms", "queue_ms", "inference_ms", "total_ms"), 0.0)
IMAGE = Embedded("r", normalize=False, features=np.array([3, 4], np.float32), timings=Timings())
TEXT = replace(IMAGE, normalize=True, tokens=5, truncated=False)
PLAIN = parse({"texts": ["x", "y"], "request_id": "job"}, max_batch_size=2)


def packed(*numbers: float, dtype: str) -> str:
    """Numbers as base64 of little-endian bytes."""
    return base64.b64encode(np.array(numbers, dtype).tobytes()).decode()


def test_an_image():
    """A vector as it is, the model, and no word of tokens."""
    assert embedding_json(IMAGE, PLAIN, SERVED) == {
        "request_id": "r",
        "embedding": [3.0, 4.0],
        **TOLD_OF_THE_MODEL,
        "normalized": False,
        "timings": NO_TIME,
    }


def test_a_text():
    """A vector of length one, and what the text cost."""
    answer = embedding_json(TEXT, PLAIN, SERVED)

    assert answer["embedding"] == pytest.approx([0.6, 0.8])
    assert {name: answer[name] for name in ("normalized", "tokens", "truncated")} == {
        "normalized": True,
        "tokens": 5,
        "truncated": False,
    }
    assert "encoding_format" not in answer


@pytest.mark.parametrize(("dtype", "kind"), [("float32", "<f4"), ("float16", "<f2")])
def test_base64(dtype, kind):
    """A packed vector says how it is packed."""
    request = parse({"text": "x", "encoding_format": "base64", "embed_dtype": dtype}, max_batch_size=1)
    answer = embedding_json(IMAGE, request, SERVED)

    assert answer["embedding"] == packed(3, 4, dtype=kind)
    assert (answer["encoding_format"], answer["embed_dtype"]) == ("base64", dtype)


def test_times_are_told_to_a_microsecond():
    """Milliseconds keep three digits."""
    told = Timings(download_ms=1.23456, decode_ms=2.0004, queue_ms=3, inference_ms=4.9999, total_ms=0.0006)

    assert told.as_json() == {
        "download_ms": 1.235,
        "decode_ms": 2.0,
        "queue_ms": 3,
        "inference_ms": 5.0,
        "total_ms": 0.001,
    }


def test_a_list_of_results():
    """Results stand in their order beside the job's own id, the model and the times of the whole."""
    answer = results_json([TEXT, IMAGE], PLAIN, SERVED, Timings(total_ms=7))

    assert [result["normalized"] for result in answer.pop("results")] == [True, False]
    assert answer == {
        "request_id": "job",
        "errors": 0,
        **TOLD_OF_THE_MODEL,
        "batch_timings": NO_TIME | {"total_ms": 7},
    }


def test_a_failure_without_an_id():
    """What is wrong with the job alone is not worth a second try."""
    assert failure_json(InvalidInput("no"), None) == {
        "error": "INVALID_INPUT: no",
        "error_code": "INVALID_INPUT",
        "retryable": False,
        "request_id": None,
    }


@pytest.mark.parametrize(
    ("over", "is_measured"), [(-1, True), (0, False), (1, False)], ids=["below", "at", "above"]
)
@pytest.mark.parametrize("count", [1, 2])
def test_an_answer_that_fits_for_certain_is_not_measured(over, is_measured, count):
    """Below the most that vectors and what stands beside them can take, the answer itself is looked at."""
    most = count * (max_encoded_bytes(512, "float", "float32") + 4000) + 2000
    unmeasurable = object()  # JSON knows no such thing
    if is_measured:
        with pytest.raises(TypeError):
            check_size_after(unmeasurable, PLAIN, count=count, dim=512, max_bytes=most + over)
    else:
        check_size_after(unmeasurable, PLAIN, count=count, dim=512, max_bytes=most + over)


def test_what_is_too_large_is_told_with_a_way_out():
    """Both numbers, and what would fit."""
    with pytest.raises(ResponseTooLarge) as before:
        check_size_before(PLAIN, count=2, dim=512, max_bytes=100)
    with pytest.raises(ResponseTooLarge) as after:
        check_size_after({"x": "\u00e9"}, PLAIN, count=2, dim=512, max_bytes=9)

    advice = "send fewer items, or ask for encoding_format 'base64' with embed_dtype 'float16'"
    assert before.value.message == f"2 vectors take 16384 bytes of JSON; the limit is 100: {advice}"
    assert after.value.message == f"the answer takes 11 bytes of JSON; the limit is 9: {advice}"
