"""What a job is answered: shape, size, and the string that RunPod wants for an error."""

from __future__ import annotations

import json

import numpy as np
import pytest

from embedding.contract.requests import Rejected, parse
from embedding.contract.responses import (
    Embedded,
    Served,
    Timings,
    check_size_after,
    check_size_before,
    failure_json,
    results_json,
)
from embedding.errors import DecodeError, Overloaded, ResponseTooLarge


SERVED = Served("served", "ViT-B-32", "openai", "cpu", "0123456789abcdef", 4)
ITEM = Embedded("r", normalize=True, features=np.arange(4, dtype=np.float32), timings=Timings())


def answer_of(request):
    """Return the answer to *request* with one vector and one error."""
    return results_json([ITEM, Rejected("e", DecodeError("not an image"))], request, SERVED, Timings())


class TestSize:
    @pytest.mark.parametrize("encoding_format", ["float", "base64"])
    def test_answer_is_measured_to_the_byte(self, encoding_format):
        """An answer of exactly the limit passes, one byte less is refused."""
        request = parse({"texts": ["x", "y"], "encoding_format": encoding_format}, max_batch_size=2)
        size = len(json.dumps(answer_of(request)).encode())

        for limit in (size, size + 1):
            check_size_after(answer_of(request), request, count=2, dim=4, max_bytes=limit)
        with pytest.raises(ResponseTooLarge, match=f"{size} bytes of JSON; the limit is {size - 1}"):
            check_size_after(answer_of(request), request, count=2, dim=4, max_bytes=size - 1)

    @pytest.mark.parametrize(
        ("extra", "least"),
        [
            ({}, 2 * 512 * 16),
            ({"encoding_format": "base64"}, 2 * 2734),
            ({"encoding_format": "base64", "embed_dtype": "float16"}, 2 * 1370),
        ],
    )
    def test_hopeless_request_is_known_before(self, extra, least):
        """Two vectors of 512 numbers are refused beforehand where they cannot fit, and not a byte sooner."""
        request = parse({"texts": ["x", "y"], **extra}, max_batch_size=2)

        check_size_before(request, count=2, dim=512, max_bytes=least)
        with pytest.raises(ResponseTooLarge):
            check_size_before(request, count=2, dim=512, max_bytes=least - 1)


class TestErrors:
    def test_whole_job_failure_is_a_string(self):
        """RunPod takes only a string under `error`; code and retryability stand beside it."""
        assert failure_json(Overloaded("full"), "r") == {
            "error": "OVERLOADED: full",
            "error_code": "OVERLOADED",
            "retryable": True,
            "request_id": "r",
        }

    def test_item_error_stays_inside_the_results(self):
        """A failed item holds its error in place; the answer itself has no `error`, so the job completes."""
        answer = answer_of(parse({"texts": ["x", "y"]}, max_batch_size=2))

        assert "error" not in answer
        assert answer["errors"] == 1
        assert answer["results"][1] == {
            "request_id": "e",
            "error": {"code": "DECODE_ERROR", "message": "not an image", "retryable": False},
        }
