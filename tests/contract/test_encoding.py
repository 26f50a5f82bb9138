"""Vectors on the wire: what comes back is what was sent, and never larger than promised."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from embedding.contract.encoding import JsonVector, decode, encode, max_encoded_bytes, normalize
from embedding.errors import InvalidInput


VECTORS = hnp.arrays(
    np.float32, st.integers(1, 40), elements=st.floats(-1000, 1000, width=32, allow_nan=False)
)


class TestRoundTrip:
    @given(vector=VECTORS)
    def test_float_and_base64_float32_are_exact(self, vector):
        """Through JSON and back, float32 loses nothing in either format."""
        for encoding_format in ("float", "base64"):
            sent = json.loads(json.dumps(encode(vector, encoding_format, "float32")))

            np.testing.assert_array_equal(decode(sent), vector)

    @given(vector=VECTORS)
    def test_float16_keeps_three_digits(self, vector):
        """float16 costs half and keeps a relative 1e-3."""
        back = decode(encode(vector, "base64", "float16"), "float16")

        np.testing.assert_allclose(back, vector, rtol=1e-3, atol=1e-4)

    def test_each_format_is_what_it_says(self):
        """A list holds the numbers, base64 their little-endian bytes."""
        vector = np.array([1, -2], np.float32)

        assert encode(vector, "float", "float32") == [1.0, -2.0]
        assert encode(vector, "base64", "float32") == "AACAPwAAAMA="
        assert encode(vector, "base64", "float16") == "ADwAwA=="

    @pytest.mark.parametrize("bad", ["!", "QUI", "QUJDRA", [1, "x"], [[1], [2, 3]]])
    def test_what_is_no_vector_is_refused(self, bad):
        """Neither broken base64 nor a list of other things decodes."""
        with pytest.raises(InvalidInput):
            decode(bad)


class TestSize:
    @given(
        vector=hnp.arrays(np.float32, 16, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))
    )
    def test_bound_holds(self, vector):
        """No vector takes more JSON than max_encoded_bytes says, in any format."""
        for encoding_format, dtype in (("float", "float32"), ("base64", "float32"), ("base64", "float16")):
            with np.errstate(over="ignore"):
                sent = json.dumps(encode(vector, encoding_format, dtype))

            assert len(sent) <= max_encoded_bytes(16, encoding_format, dtype)

    @pytest.mark.parametrize(("dim", "dtype", "size"), [(512, "float16", 1370), (512, "float32", 2734)])
    def test_base64_is_small(self, dim, dtype, size):
        """512 numbers take 1.4 KB as float16 and 2.7 KB as float32."""
        assert max_encoded_bytes(dim, "base64", dtype) == size
        assert len(json.dumps(encode(np.ones(dim, np.float32), "base64", dtype))) == size

    @pytest.mark.parametrize("dim", [1, 2, 3, 4, 511, 512, 513])
    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    def test_base64_is_known_to_the_byte(self, dim, dtype):
        """What base64 takes is known before there is a vector; of a list only the most it can take."""
        sent = json.dumps(encode(np.ones(dim, np.float32), "base64", dtype))

        assert max_encoded_bytes(dim, "base64", dtype) == len(sent)
        assert max_encoded_bytes(dim, "float", "float32") == 25 * dim + 2


class TestNormalize:
    @given(vector=VECTORS.filter(lambda v: float(np.abs(v).max()) > 1e-6))
    def test_norm_is_one(self, vector):
        """The L2 norm of a normalised vector is 1 within 1e-5."""
        assert abs(float(np.linalg.norm(normalize(vector).astype(np.float64))) - 1) <= 1e-5


class TestJsonVector:
    def test_prints_short_and_serialises_whole(self):
        """The SDK's debug log formats a few characters; JSON still carries every number."""
        vector = JsonVector([0.5] * 512)

        assert repr(vector) == str(vector) == f"{vector}" == "[0.5000, … 512 floats]"
        assert json.loads(json.dumps(vector)) == [0.5] * 512
        assert repr(JsonVector()) == "[]"
