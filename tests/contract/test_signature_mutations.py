"""Whatever was changed after signing is refused, with one message; `make fuzz` tries 100,000 changes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding.contract.canonical import Signable
from embedding.contract.signatures import sign_v2
from tests.contract.signing import JOB, NEW, NOW, URL, accepts_item, accepts_job, signed, v1
from tests.contract.tampering import INDEX, is_same, is_same_auth, near, tampered


JOBS = [
    signed(JOB),
    signed({"texts": ["a cat", "a dog", "Ünïcödé \u00e9"], "normalize": False, "request_id": "7"}),
    signed({"image_url": URL, "encoding_format": "base64", "embed_dtype": "float16"}),
    signed({"text": "", "options": {"": [0, 1, 1.5, -0.0, 1e21, None, [[], {}]]}, "truncate": True}),
    signed({"openai_route": "/v1/embeddings", "openai_input": {"input": ["a cat"], "dimensions": 512}}),
]
ITEMS = [
    Signable(image_url=URL),
    Signable(image_url=f"{URL}?a=1|2", in_batch=True),
    Signable(image_bytes=b"\x89PNG\r\n\x1a\n"),
    Signable(image_bytes=b"GIF89a", in_batch=True),
    Signable(text="a cat"),
    Signable(text="Ünïcödé \u00e9", in_batch=True),
]
CONTENTS = ("image_url", "image_bytes", "text")
counts = Counter()


@pytest.fixture(scope="module", autouse=True)
def _told():
    """Tell how much was tried; pytest shows it with -s."""
    yield
    print(f"\n{counts['changed']} changes to what was signed: {counts['accepted']} accepted", end="")
    print(f"; {counts['same']} other spellings of the same, all accepted")


def hold(*, is_unchanged: bool, is_accepted: bool) -> None:
    """Count one attempt, and fail where what is changed is accepted, or what is the same is not."""
    counts["same" if is_unchanged else "changed"] += 1
    counts["accepted"] += is_accepted and not is_unchanged
    assert is_accepted is is_unchanged


@given(st.sampled_from(JOBS).flatmap(lambda job: st.tuples(st.just(job), tampered(job))))
def test_no_changed_job_is_accepted(jobs):
    """A signed job with one change anywhere, in auth or input, is refused."""
    job, changed = jobs

    hold(is_unchanged=is_same_job(job, changed), is_accepted=accepts_job(changed))


@given(st.sampled_from(JOBS).flatmap(lambda job: tampered(job).flatmap(lambda once: st.tuples(
    st.just(job), tampered(once) if isinstance(once, dict) and once else st.just(once)
))))  # fmt: skip
def test_no_twice_changed_job_is_accepted(jobs):
    """Nor is one with two changes, whether or not they hang together."""
    job, changed = jobs

    hold(is_unchanged=is_same_job(job, changed), is_accepted=accepts_job(changed))


@given(st.data(), st.sampled_from(ITEMS))
def test_no_changed_auth_of_an_item_is_accepted(data, item):
    """The `auth` of an item, v1 or v2, alone or in a batch, serves only as it is."""
    auth = sign_v2(item, NEW, now=NOW)
    if item == ITEMS[0] and data.draw(st.booleans()):
        auth = v1()
    changed = data.draw(tampered(auth))

    hold(is_unchanged=is_same_auth(auth, changed), is_accepted=accepts_item(changed, item))


@given(st.sampled_from(ITEMS), st.sampled_from([*CONTENTS, "in_batch"]), st.sampled_from(CONTENTS), INDEX)
def test_no_changed_item_is_accepted(item, name, source, choice):
    """An item's `auth` serves no other content, no other kind of content, and no other place."""
    auth = v1() if item == ITEMS[0] and choice % 2 else sign_v2(item, NEW, now=NOW)
    changed = replace(
        item, **{name: not item.in_batch if name == "in_batch" else near(getattr(item, source), choice // 2)}
    )
    if not isinstance(changed.image_bytes, bytes | None):  # decoded by the worker itself: never anything else
        changed = replace(changed, image_bytes=str(changed.image_bytes).encode("utf-8", "replace"))
    if choice % 3 == 0 and name not in {"in_batch", source}:
        changed = replace(changed, **{source: None})  # moved from one kind to another
    is_unchanged = content(changed) == content(item) and not (auth == v1() and changed.in_batch)

    hold(is_unchanged=is_unchanged, is_accepted=accepts_item(auth, changed))


def is_same_job(job: dict, other: object) -> bool:
    """Whether two jobs say the same under the same auth."""
    return (
        isinstance(other, dict)
        and is_same_auth(job["auth"], other.get("auth"))
        and is_same({**job, "auth": None}, {**other, "auth": None})
    )


def content(item: Signable) -> list:
    """What a v2 signature covers of an item: a text has one place."""
    given_ = [(name, type(value), value) for name in CONTENTS if (value := getattr(item, name)) is not None]
    return [*given_, item.in_batch and item.text is None]
