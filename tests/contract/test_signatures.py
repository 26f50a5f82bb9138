"""A job is accepted as it was signed; changed in any field it meets the one refusal, and nothing else."""

from __future__ import annotations

import copy
import math
import sys

import pytest

from embedding.contract.signatures import sign_v3
from embedding.errors import InvalidInput
from tests.contract.signing import JOB, NEW, NONCE, NOW, URL, accepts_job, flipped, signed, with_auth


def test_what_is_signed_is_accepted():
    """A signed batch is accepted as it is, and in another order of keys."""
    job = signed()

    assert accepts_job(job)
    assert accepts_job(dict(reversed(job.items())))


def test_the_signature_may_be_upper_case():
    """Hex has two spellings; both are the same 32 bytes."""
    assert accepts_job(with_auth(sig=signed()["auth"]["sig"].upper()))


@pytest.mark.parametrize(
    "tamper",
    [
        lambda job: job.update(normalize=False),
        lambda job: job.update(normalize=1),
        lambda job: job.update(normalize="true"),
        lambda job: job.pop("normalize"),
        lambda job: job.update(encoding_format="base64"),
        lambda job: job.update(unknown=None),
        lambda job: job.update({"auth ": 1}),
        lambda job: job["items"].reverse(),
        lambda job: job["items"].pop(),
        lambda job: job["items"].append({}),
        lambda job: job["items"][0].update(image_url=URL + "/"),
        lambda job: job["items"][0].update(image_url=URL.upper()),
        lambda job: job["items"][0].update(auth={"ts": NOW, "sig": "0" * 64}),
        lambda job: job["items"][0].update(request_id=1),
        lambda job: job["items"][1].update(text="a cat "),
        lambda job: job["items"][1].update(text="\u0430 cat"),
    ],
)
def test_any_change_to_the_input_is_refused(tamper):
    """No field can be added, removed, moved or altered after signing."""
    job = copy.deepcopy(signed())
    tamper(job)

    assert not accepts_job(job)


@pytest.mark.parametrize("place", [0, 31, 63])
def test_one_bit_of_the_signature_is_enough_to_refuse(place):
    """The first, a middle and the last digit all count."""
    assert not accepts_job(with_auth(sig=flipped(signed()["auth"]["sig"], place)))


@pytest.mark.parametrize(
    "changes",
    [
        {"kid": "old"},
        {"kid": "nobody"},
        {"kid": "new "},
        {"iat": NOW - 1},
        {"iat": NOW + 1},
        {"exp": NOW + 3599},
        {"nonce": "abcdefghijklmnoq"},
        {"nonce": NONCE.upper()},
        {"alg": "none"},
    ],
)
def test_any_change_to_auth_is_refused(changes):
    """Every field of auth is covered, and there is no field beside them."""
    assert not accepts_job(with_auth(**changes))


@pytest.mark.parametrize(
    "auth",
    [
        None, True, 3, "", "auth", [], {}, {"v": 3}, {"ts": NOW, "sig": "0" * 64}, {"sig": None}, [["v", 3]],
    ],
)  # fmt: skip
def test_an_auth_of_another_shape_is_refused(auth):
    """Nothing, other types and the fields of other versions are no v3 signature."""
    assert not accepts_job({**JOB, "auth": auth})
    assert not accepts_job({"auth": auth})


def test_an_input_without_auth_is_refused():
    """What is not signed is not accepted, whatever it is."""
    assert not accepts_job(JOB)
    assert not accepts_job([signed()])
    assert not accepts_job(None)


@pytest.mark.parametrize("name", ["v", "kid", "iat", "exp", "nonce", "sig"])
@pytest.mark.parametrize(
    "value",
    [
        None, True, False, 0, -1, 3.0, float(NOW), math.nan, math.inf, "", "3", "\ud800",
        pytest.param(10**5000, id="huge"), pytest.param(-(10**5000), id="-huge"),
        "\u0661" * 64, "\u212a" * 16, "0x" + "0" * 62, " " * 64, "ab " * 21 + "a", "\0" * 64, "0" * 64 + "\n",
        "z" * 64, b"0" * 64, [], ["a"], {}, {"v": 3},
    ],
)  # fmt: skip
def test_a_malformed_field_is_refused(name, value):
    """Wrong types, huge numbers, floats, NaN, non-ASCII and lone surrogates meet the one refusal."""
    assert not accepts_job(with_auth(**{name: value}))


@pytest.mark.parametrize("name", ["v", "kid", "iat", "exp", "nonce", "sig"])
def test_a_missing_field_is_refused(name):
    """All six fields are needed."""
    job = signed()
    del job["auth"][name]

    assert not accepts_job(job)


@pytest.mark.parametrize("version", [True, 3.0, "3", 2, 4])
def test_the_version_is_the_integer_3(version):
    """`v` is not covered by the MAC, so only one value of it exists."""
    assert not accepts_job(with_auth(v=version))


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        2**53,
        -(2**53),
        pytest.param(10**5000, id="huge"),
        "\ud800",
        {"\ud800": 1},
        {1: 2},
        b"bytes",
        {1, 2},
    ],
)
def test_an_input_without_a_canonical_form_is_refused(value):
    """What JSON cannot carry exactly can be neither signed nor verified."""
    assert not accepts_job({"x": value, "auth": signed()["auth"]})
    with pytest.raises(InvalidInput):
        sign_v3({"x": value}, NEW)


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"x": inner}])
def test_a_very_deep_input_is_refused(wrap):
    """Depth beyond the interpreter's recursion limit is a refusal like any other."""
    nested = 1
    for _ in range(sys.getrecursionlimit() * 5):
        nested = wrap(nested)

    assert not accepts_job({"x": nested, "auth": signed()["auth"]})
