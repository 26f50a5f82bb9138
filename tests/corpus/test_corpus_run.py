"""The examination itself, in short: some attacks of each kind, and mutated files, through the worker."""

from __future__ import annotations

import numpy as np
import pytest

from tests.corpus import attacks
from tests.corpus.__main__ import folders
from tests.corpus.examination import Findings, _alone, _compare_batch, _judge, examine, storm
from tests.corpus.subject import Answer, subject


DEAREST = ["jpeg/three scans, 45 MP", "png/RGBA, after 4 MB of nothing", "gif/screen of 50 MP, frame of 1"]
REFUSED = ["jpeg/7 sequential scans of 50 MP", "png/16-bit RGBA of 49 MP", "gif/screen of 4,000 MP"]


@pytest.fixture(scope="module")
def worker():
    """Return a worker on one core, sized for eight."""
    with subject(cpus=8) as worker:
        yield worker


def of(makers, names):
    """Return the files of *names*."""
    return {name: makers[name]() for name in names}


@pytest.mark.parametrize(
    ("group", "make"),
    [
        ("dearest", lambda: of(attacks.DEAREST, DEAREST)),
        ("refused", lambda: of(attacks.REFUSED, REFUSED)),
        ("odd", lambda: attacks.made(attacks.ODD)),
        ("mutated", lambda: attacks.mutated(30)),
    ],
)
def test_every_file_is_answered_within_limits(worker, group, make):
    """A right code or a vector, alone as in a batch, in a second and 700 MB."""
    findings = examine(worker, group, make())

    assert findings.violations == []
    assert sum(findings.codes.values()) == findings.files


def test_many_large_pictures_at_once_share_the_memory(worker):
    """Six files of 0.5 MB that take 450 MB each to decode come at once: no more than 700 MB are taken."""
    name = DEAREST[0]
    (findings,) = storm(worker, {name: [attacks.DEAREST[name]()] * 6})

    assert findings.violations == []
    assert findings.codes == {"": 12}


def test_every_file_of_a_folder_is_found(tmp_path):
    """Whatever it is called and however deep it lies; an empty folder is a mistake."""
    names = ["a.png", "no suffix", "deep/er/\udcff.exe", "deep/.hidden"]
    for name in names:
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode(errors="surrogateescape"))
    found = {f"{group}/{name}" for group, read in folders([tmp_path / "set"]) for name in read()}

    assert found == {"set/a.png", "set/no suffix", "set/deep/er/\\udcff.exe", "set/deep/.hidden"}
    with pytest.raises(SystemExit, match="no file"):
        list(folders([tmp_path / "set" / "deep" / "er" / "none"]))


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(code="INTERNAL_ERROR"), "was answered INTERNAL_ERROR"),
        (Answer(code="FAILED: no code"), "was answered FAILED"),
        (Answer(vector=np.ones(4)), "not of norm 1"),
        (Answer(vector=np.full(4, np.nan)), "not of norm 1"),
    ],
)
def test_what_is_out_of_bounds_is_told(answer, told):
    """Codes that no image deserves and vectors that are none are violations."""
    findings = Findings("group")
    _judge(findings, "file", answer)

    assert told in findings.violations[0]


@pytest.mark.parametrize(
    ("cpu_s", "tries", "told"),
    [
        ([1.0], 1, []),
        ([1.01, 1.3, 1.0], 3, []),
        ([1.3, 0.9, 1.2], 3, []),
        ([1.3, 1.02, 1.01], 3, ["file took 1.01 s of CPU"]),
    ],
)
def test_a_file_over_the_bound_is_sent_twice_more(cpu_s, tries, told):
    """The least of three counts: what only a busy machine made dear is no violation."""
    answers = iter([Answer(code="DECODE_ERROR", cpu_s=each) for each in cpu_s])

    class Alone:
        def alone(self, _data):
            return next(answers)

    findings = Findings("group")
    answer = _alone(Alone(), findings, "file", b"x")

    assert (findings.violations, answer.cpu_s) == (told, min(cpu_s))
    assert len([*answers]) == len(cpu_s) - tries
    assert findings.codes == {"DECODE_ERROR": 1}


def test_every_try_is_judged():
    """A wrong answer is told, though a cheaper try had a right one."""
    answers = iter([Answer(code="INTERNAL_ERROR", cpu_s=1.1), *[Answer(code="DECODE_ERROR", cpu_s=0.5)] * 2])

    class Alone:
        def alone(self, _data):
            return next(answers)

    findings = Findings("group")
    _alone(Alone(), findings, "file", b"x")

    assert findings.violations == ["file was answered INTERNAL_ERROR"]


def test_a_neighbour_that_suffers_is_told():
    """A good picture whose vector differs in a batch is a violation."""
    good, other = np.array([1.0, 0.0]), np.array([0.0, 1.0])

    class Batch:
        def batch(self, _items):
            return [Answer(code="DECODE_ERROR"), Answer(vector=other), Answer(vector=good)]

    findings = Findings("group")
    neighbours = Answer(vector=good), Answer(vector=good)
    _compare_batch(Batch(), findings, {"bad": (b"x", Answer(code="DECODE_ERROR"))}, neighbours)

    assert findings.violations == ["the neighbour of bad is answered otherwise in a batch: None"]
