"""The chaos run in small, and what its parts promise."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from embedding.contract.keys import Key
from embedding.errors import DownloadError, WorkerError
from embedding.intake.image import ImageLimits, Preprocess, decode_image
from tests.chaos.crew import ROOT
from tests.chaos.images import DRIPPING, FAILING_PLANS, GOOD_PLANS, ImageServer
from tests.chaos.items import REFUSED_URLS, Items, make_pictures
from tests.chaos.jobs import JobMaker
from tests.chaos.outcomes import Bad
from tests.chaos.plan import Plan
from tests.chaos.run import run
from tests.chaos.worker import local_fetcher


PREPROCESS = Preprocess.from_config({"size": 32})


@pytest.fixture(scope="module")
def server():
    """Return a running server of pictures."""
    with ImageServer(make_pictures()).running() as server:
        yield server


@pytest.fixture(scope="module")
def embeddable(server):
    """Return what a URL comes to: pixels, or the error of a worker."""
    fetcher = local_fetcher(server.port)

    def fetch(url):
        try:
            return decode_image(fetcher.fetch(url), preprocess=PREPROCESS, limits=ImageLimits())
        except WorkerError as error:
            return Bad(error.code, retryable=error.retryable)

    yield fetch
    fetcher.close()


class TestRun:
    def test_small(self):
        """Sixty jobs while workers are killed and replaced: each has one right result or one right error."""
        said = []
        outcome = run(Plan(jobs=60, timeout_s=60), said.append)

        assert [line for line in outcome.violations if "shows little" not in line] == []
        assert sum(count for name, count in outcome.figures.items() if name.startswith("jobs: ")) == 60
        assert said

    def test_lost_jobs(self):
        """A run that nobody serves says of each of its jobs that it is lost."""
        outcome = run(Plan(jobs=3, workers=0, timeout_s=0.1), print)

        assert sum("lost: it is IN_QUEUE" in line for line in outcome.violations) == 3


class TestImages:
    @pytest.mark.parametrize("plan", GOOD_PLANS)
    def test_good_plans(self, server, embeddable, plan):
        """These pictures come, whatever came first."""
        assert embeddable(server.url(plan, 1, "1.png")).shape == (32, 32, 3)

    @pytest.mark.parametrize("plan", [plan for plan in FAILING_PLANS if plan != DRIPPING])
    def test_failing_plans(self, server, embeddable, plan):
        """These pictures never come, and the error is the one foretold."""
        assert embeddable(server.url(plan, 2, "1.png")) == FAILING_PLANS[plan]

    @pytest.mark.parametrize("url", REFUSED_URLS)
    def test_refused_urls(self, embeddable, url):
        """These are not asked for."""
        assert embeddable(url) == Bad("URL_REFUSED")

    def test_unknown_host(self, embeddable):
        """A name of no host is looked up nowhere."""
        assert embeddable("http://nowhere.example/x.png") == Bad(DownloadError.code)


def test_seed_decides(server):
    """The same seed makes the same jobs, another makes others; all kinds are there."""

    def make(seed):
        rng = random.Random(seed)
        jobs = JobMaker(rng, Items(rng, make_pictures(), server), Key("k", b"x" * 32)).make(50)
        return [(job.kind, job.outcomes, job.refusal) for job in jobs]

    assert make(1) == make(1) != make(2)
    assert len({kind for kind, *_ in make(1)}) == 10


def test_help_teaches():
    """--help says what happens, what is checked, and how to begin."""
    command = [sys.executable, "-m", "tests.chaos", "--help"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert all(
        part in told for part in ("what happens:", "what is checked:", "examples:", "--jobs", "--seed")
    )
