"""A nonce serves one job: delivered again it is accepted, under another job id it is refused."""

from __future__ import annotations

import threading

import pytest

from embedding.contract.signatures import Verifier, _JobAuth
from tests.contract.signing import (
    NEW,
    NOW,
    OLD,
    RING,
    accepts_job,
    signed,
    signed_by_hand,
    verifier,
    with_auth,
)


def test_redelivery_is_accepted_and_replay_is_not():
    """The same nonce serves the same job again, and no other job."""
    worker, job = verifier(), signed()

    answers = [
        accepts_job(job, by=worker, job_id=job_id) for job_id in ("job-1", "job-1", "job-2", None, "job-1")
    ]

    assert answers == [True, True, False, False, True]


def test_without_a_job_id_a_nonce_serves_once():
    """Where no queue names jobs, there is no redelivery to be told from a replay."""
    worker, job = verifier(), signed()

    assert [accepts_job(job, by=worker, job_id=job_id) for job_id in (None, None, "job-1")] == [
        True,
        False,
        False,
    ]


def test_a_nonce_belongs_to_its_key():
    """Two callers with secrets of their own may happen on one nonce."""
    worker = verifier()

    assert accepts_job(signed(key=OLD), by=worker, job_id="job-1")
    assert accepts_job(signed(key=NEW), by=worker, job_id="job-2")


def test_another_input_does_not_free_a_nonce():
    """A nonce is spent with whatever it was first signed for."""
    worker = verifier()

    assert accepts_job(signed({"text": "a"}), by=worker, job_id="job-1")
    assert not accepts_job(signed({"text": "b"}), by=worker, job_id="job-2")


@pytest.mark.parametrize(
    "refused", [with_auth(sig="0" * 64), signed_by_hand(exp=NOW - 1), signed_by_hand(exp=NOW + 3601)]
)
def test_a_refused_job_spends_no_nonce(refused):
    """Whoever has no secret cannot use up the nonces of those who have."""
    worker = verifier()

    assert not accepts_job(refused, by=worker, job_id="job-1")
    assert accepts_job(signed(), by=worker, job_id="job-2")


@pytest.mark.parametrize(("later_s", "accepted"), [(59, False), (60, False), (61, True)])
def test_a_nonce_is_remembered_until_its_signature_expires(later_s, accepted):
    """Memory of a nonce ends with the last second in which it could be replayed."""
    now = [NOW]
    worker = Verifier(RING, clock=lambda: now[0])
    assert accepts_job(signed_by_hand(exp=NOW + 60), by=worker, job_id="job-1")
    now[0] += later_s

    assert accepts_job(signed_by_hand(exp=NOW + 3600), by=worker, job_id="job-2") is accepted


def test_a_redelivery_signed_for_longer_is_remembered_for_longer():
    """The longest life seen under a nonce counts."""
    now = [NOW]
    worker = Verifier(RING, clock=lambda: now[0])
    long, short = signed_by_hand(exp=NOW + 600), signed_by_hand(exp=NOW + 60)
    assert [accepts_job(job, by=worker, job_id="job-1") for job in (short, long, short)] == [
        True,
        True,
        True,
    ]
    now[0] += 300

    assert not accepts_job(long, by=worker, job_id="job-2")


def test_memory_is_bounded_and_forgets_the_least_recently_used():
    """Beyond max_nonces the nonce that was used longest ago gives way."""
    worker = verifier(max_nonces=2)
    first, second, third = (signed(nonce=digit * 16) for digit in "123")
    for job, job_id in ((first, "1"), (second, "2"), (first, "1"), (third, "3")):
        assert accepts_job(job, by=worker, job_id=job_id)

    assert len(worker._nonces._uses) == 2
    assert not accepts_job(first, by=worker, job_id="x")
    assert not accepts_job(third, by=worker, job_id="x")
    assert accepts_job(second, by=worker, job_id="x")


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_as_many_nonces_as_fit(over):
    """65,536 nonces are remembered; with one more, the one that was used longest ago can be replayed."""
    worker, oldest, newest = verifier(), signed(nonce="0" * 16), signed(nonce="1" * 16)
    assert accepts_job(oldest, by=worker, job_id="1")
    others = {("new", str(number)): ("x", NOW + 60) for number in range(65_536 - 2 + over)}
    worker._nonces._uses.update(others)
    assert accepts_job(newest, by=worker, job_id="2")

    assert len(worker._nonces._uses) == 65_536 + min(over, 0)
    assert accepts_job(oldest, by=worker, job_id="3") is (over > 0)


def test_a_nonce_used_by_another_job_is_not_admitted():
    """The answer to a replay is a plain false."""
    memory, auth = verifier()._nonces, _JobAuth.read(signed()["auth"])

    assert memory.admit(auth, job_id="1", now=NOW) is True
    assert memory.admit(auth, job_id="2", now=NOW) is False


def test_at_the_epoch_itself_a_new_nonce_is_new():
    """A nonce that was never seen is not taken for one that expires at the first second there is."""
    assert accepts_job(signed_by_hand(iat=0, exp=60), by=verifier(now=0))


def test_expired_nonces_are_let_go():
    """Memory shrinks once what it holds can no longer be replayed."""
    now = [NOW]
    worker = Verifier(RING, clock=lambda: now[0])
    for number in range(100):
        assert accepts_job(signed(nonce=f"{number:016d}", lifetime_s=60), by=worker, job_id=str(number))
    now[0] += 61

    assert accepts_job(signed(now=now[0]), by=worker)
    assert len(worker._nonces._uses) == 1


def test_threads_cannot_share_a_nonce():
    """Of many jobs with one nonce at one time, one is accepted."""
    worker, job, start = verifier(), signed(), threading.Barrier(8)
    accepted = []

    def deliver(job_id: str) -> None:
        start.wait()
        accepted.append(accepts_job(job, by=worker, job_id=job_id))

    threads = [threading.Thread(target=deliver, args=(str(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(accepted) == [False] * 7 + [True]
