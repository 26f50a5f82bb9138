"""For whatever JSON can carry: verify of sign is true, of anything else false, and nothing is raised."""

from __future__ import annotations

import json

from hypothesis import assume, given
from hypothesis import strategies as st

from embedding.contract.canonical import Signable, canonical_json
from embedding.contract.signatures import sign_v2
from tests.contract.signing import JOB, NEW, NONCE, NOW, accepts_item, accepts_job, signed, with_auth


WELL_FORMED = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | WELL_FORMED,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WELL_FORMED, inner, max_size=3),
    max_leaves=8,
)
INPUTS = st.dictionaries(WELL_FORMED.filter(lambda name: name != "auth"), JSON, max_size=4)
STRANGE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([3, NONCE, "0" * 64, NOW]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
STRANGE_AUTH = STRANGE | st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("v", "kid", "iat", "exp", "nonce", "sig", "ts"), STRANGE)
)


@given(INPUTS, st.text("abcXYZ019_-", min_size=16, max_size=64), st.integers(1, 3600))
def test_verify_of_sign_is_true(job_input, nonce, lifetime_s):
    """Whatever JSON can carry can be signed, sent as text, and verified."""
    sent = json.loads(json.dumps(signed(job_input, nonce=nonce, lifetime_s=lifetime_s)))

    assert accepts_job(sent)


@given(INPUTS, st.data())
def test_any_single_change_of_the_input_is_false(job_input, data):
    """One field set to another value, removed or added: refused."""
    name = data.draw(
        st.sampled_from(sorted(job_input)) if job_input else WELL_FORMED.filter(lambda name: name != "auth")
    )
    changed = {key: value for key, value in job_input.items() if key != name}
    if data.draw(st.booleans()):
        changed[name] = data.draw(JSON)
    assume(canonical_json(changed) != canonical_json(job_input))

    assert not accepts_job({**changed, "auth": signed(job_input)["auth"]})


@given(st.sampled_from(["v", "kid", "iat", "exp", "nonce", "sig"]), STRANGE)
def test_any_single_change_of_auth_is_false(name, value):
    """One field of auth set to anything else: refused."""
    auth = signed()["auth"]
    assume(not (type(value) is type(auth[name]) and value == auth[name]))

    assert not accepts_job({**JOB, "auth": {**auth, name: value}})


@given(st.integers(0, 255))
def test_any_flipped_bit_of_the_signature_is_false(bit):
    """All 256 bits count."""
    sig = bytearray.fromhex(signed()["auth"]["sig"])
    sig[bit // 8] ^= 1 << bit % 8

    assert not accepts_job(with_auth(sig=sig.hex()))


@given(STRANGE, STRANGE_AUTH)
def test_nothing_but_a_refusal_is_raised_for_a_job(job_input, auth):
    """Arbitrary values, lone surrogates and NaN included, are refused and nothing else."""
    assert not accepts_job(job_input)
    assert not accepts_job({**(job_input if isinstance(job_input, dict) else {}), "auth": auth})
    assert not accepts_job({"x": job_input, "auth": {**signed()["auth"], "nonce": "x" * 16}})


@given(STRANGE_AUTH, STRANGE, STRANGE)
def test_nothing_but_a_refusal_is_raised_for_an_item(auth, image_url, text):
    """The same holds for items, whatever stands in their fields."""
    assert not accepts_item(auth, Signable(image_url=image_url, text=text))
    assert not accepts_item({"ts": NOW, "sig": "0" * 64}, Signable(image_url=image_url))
    assert not accepts_item({"ts": NOW, "sig": "0" * 64}, Signable(text=text))


@given(WELL_FORMED, WELL_FORMED, st.booleans())
def test_v2_of_texts(one, other, in_batch):
    """A text's signature is good for that text and no other."""
    auth = sign_v2(Signable(text=one), NEW, now=NOW)

    assert accepts_item(auth, Signable(text=one, in_batch=in_batch))
    assert accepts_item(auth, Signable(text=other, in_batch=in_batch)) is (one == other)
