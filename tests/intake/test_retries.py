"""How often and how soon a download is tried again, alone and in the whole process."""

from __future__ import annotations

import math

import pytest

from embedding.errors import DownloadError
from embedding.intake.limits import FetchLimits
from embedding.intake.retries import Busy, RetryBudget, pause_s
from tests.intake.servers import answer, ok


class TestBudget:
    @pytest.mark.parametrize(("tokens", "retries"), [(19, 1), (20, 2), (21, 2), (9, 0), (0, 0)])
    def test_pays_for_so_many_retries(self, tokens, retries):
        """A full bucket pays for as many retries as it holds their cost."""
        budget = RetryBudget(FetchLimits(retry_tokens=tokens, retry_cost=10))

        assert [budget.spend() for _ in range(4)] == [True] * retries + [False] * (4 - retries)

    def test_ten_successes_pay_for_one(self):
        """Nine successes do not yet pay for a retry, ten do, and only for one."""
        budget = RetryBudget(FetchLimits(retry_tokens=10, retry_cost=10))
        assert budget.spend()
        for _ in range(9):
            budget.earn()
        assert not budget.spend()
        budget.earn()

        assert budget.spend()
        assert not budget.spend()

    def test_saves_no_more_than_it_holds(self):
        """Successes beyond a full bucket are forgotten."""
        budget = RetryBudget(FetchLimits(retry_tokens=10, retry_cost=10))
        for _ in range(100):
            budget.earn()

        assert [budget.spend(), budget.spend()] == [True, False]

    def test_by_default_pays_for_fifty(self):
        """Botocore's bucket and a tenth: fifty retries, then none."""
        budget = RetryBudget(FetchLimits())

        assert sum(budget.spend() for _ in range(100)) == 50

    @pytest.mark.parametrize(("tokens", "retries"), [(39, 3), (40, 4), (41, 4)])
    def test_is_shared_by_all_downloads(self, serve, fetcher, tokens, retries):
        """When everything fails, ten downloads together are retried as often as the bucket allows."""
        server = serve(answer(503), keeps=True)
        shared = fetcher(server, retry_tokens=tokens)
        for number in range(10):
            with pytest.raises(DownloadError, match="answered 503") as failure:
                shared.fetch(server.url(f"host{number}.test"))
            assert failure.value.retryable

        assert len(server.requests) == 10 + retries

    def test_is_filled_by_downloads(self, serve, fetcher):
        """Ten downloads that succeed pay for the retry of the next that fails."""
        server = serve(answer(503), *[ok()] * 11, answer(503), ok(b"picture"), keeps=True)
        shared = fetcher(server, retry_tokens=10)
        for _ in range(11):
            shared.fetch(server.url("a.test"))

        assert shared.fetch(server.url("a.test")) == b"picture"
        assert len(server.requests) == 14

    def test_is_not_spent_on_what_stays(self, serve, fetcher):
        """A failure that is final costs nothing."""
        server = serve(answer(404), answer(404), answer(503), ok(b"picture"))
        shared = fetcher(server, retry_tokens=10)
        for _ in range(2):
            with pytest.raises(DownloadError, match="404"):
                shared.fetch(server.url("a.test"))

        assert shared.fetch(server.url("a.test")) == b"picture"


class TestAttempts:
    @pytest.mark.parametrize(("failures", "passes"), [(1, True), (2, True), (3, False)])
    def test_end_at_the_limit(self, serve, fetcher, failures, passes):
        """The third attempt is the last."""
        server = serve(*[answer(500)] * failures, ok(b"picture"))
        if passes:
            assert fetcher(server, max_attempts=3).fetch(server.url("a.test")) == b"picture"
        else:
            with pytest.raises(DownloadError, match="500"):
                fetcher(server, max_attempts=3).fetch(server.url("a.test"))
        assert len(server.requests) == min(failures + 1, 3)


class TestPause:
    @pytest.mark.parametrize(
        ("attempt", "longest_s"), [(1, 0.2), (2, 0.4), (3, 0.8), (4, 1.6), (5, 2.0), (9, 2.0)]
    )
    def test_doubles_up_to_the_cap(self, attempt, longest_s):
        """Pauses are spread evenly from none to a bound that doubles, up to two seconds."""
        pauses_s = [pause_s(DownloadError(""), attempt, FetchLimits()) for _ in range(500)]

        assert 0 <= min(pauses_s) < 0.1 * longest_s
        assert 0.9 * longest_s < max(pauses_s) <= longest_s

    @pytest.mark.parametrize(
        ("header", "least_s"), [("4", 4), ("5", 5), ("6", math.inf), ("999999999", math.inf)]
    )
    def test_heeds_the_server_up_to_a_limit(self, header, least_s):
        """Retry-After is honoured up to five seconds; more is not waited for."""
        assert pause_s(Busy("", header), 1, FetchLimits()) == least_s

    @pytest.mark.parametrize(
        "header", ["", "-1", "1.5", "1e3", "²", "Fri, 31 Dec 1999 23:59:59 GMT", "9" * 10]
    )
    def test_heeds_no_nonsense(self, header):
        """What is not a number of seconds counts as none."""
        assert pause_s(Busy("", header), 1, FetchLimits()) <= 0.2
