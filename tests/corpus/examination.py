"""What the worker makes of many files: each alone, then in batches among good ones, and what that costs.

The bounds: an answer to everything; a vector, or a code that an image can deserve; one second of one core
for a file, in the cheapest of three tries, because a busy machine takes longer for the same work; 700 MB of
memory over the idle worker. In a batch every file has the answer that it has alone.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from tests.corpus.subject import REFUSALS, good, image


MAX_CPU_S = 1.0
TRIES = 3  # at a file that seems to take more
MAX_PEAK_MB = 700.0
MAX_GAP = 1e-5
NEAR_LIMIT_S = 0.2  # of a core: it may be out of time once, and not the next time
BATCH_FILES = 31
BATCH_BYTES = 7_000_000  # before base64, which makes 10 MB of it
TEXT = {"text": "a red circle"}


@dataclass(slots=True)
class Findings:
    """What one group of files did, and what of it is out of bounds."""

    group: str
    files: int = 0
    codes: Counter = field(default_factory=Counter)
    slowest: tuple[float, float, str] = (0.0, 0.0, "")
    peak_mb: float = 0.0
    violations: list[str] = field(default_factory=list)

    def line(self):
        """Return the findings as a line of the table."""
        cpu_s, wall_s, name = self.slowest
        refused = [str(self.codes.pop(code, 0)) for code in sorted(REFUSALS)]
        row = [str(self.files), str(self.codes[""]), *refused, f"{cpu_s:.2f}", f"{wall_s:.2f}"]
        return (
            f"{self.group[-32:]:32}" + "".join(f"{cell:>8}" for cell in row) + f"{self.peak_mb:9.0f}  {name}"
        )


TITLE = f"{'folder':32}" + "".join(
    f"{title:>8}" for title in ("files", "ok", "DECODE", "LARGE", "INVALID", "cpu s", "wall s")
)
TITLE += f"{'peak MB':>9}  slowest file"


def examine(subject, group, files):
    """Send *files*, contents by name, alone and in batches; return the findings."""
    findings = Findings(group, files=len(files))
    subject.forget_peak()
    alone = {name: _alone(subject, findings, name, data) for name, data in files.items()}
    expected = subject.alone(good()), subject.batch([TEXT])[0]
    for names in _batches(files):
        _compare_batch(subject, findings, {name: (files[name], alone[name]) for name in names}, expected)
    _judge_peak(subject, findings)
    return findings


def storm(subject, crowds):
    """Send each of *crowds*, lists of files by name, as jobs at once and as one batch; yield the findings."""
    for name, crowd in crowds.items():
        findings = Findings(f"at once: {name}", files=len(crowd))
        subject.forget_peak()
        answers = subject.together(crowd)
        if sum(map(len, crowd)) <= BATCH_BYTES:
            answers += subject.batch([image(data) for data in crowd])
        for answer in answers:
            _judge(findings, name, answer)
            findings.codes[answer.code or ""] += 1
        _judge_peak(subject, findings)
        yield findings


def _alone(subject, findings, name, data):
    answers = [subject.alone(data)]
    if answers[0].cpu_s > MAX_CPU_S:
        answers += [subject.alone(data) for _ in range(TRIES - 1)]
    for answer in answers:
        _judge(findings, name, answer)
    answer = min(answers, key=lambda each: each.cpu_s)
    findings.codes[answer.code or ""] += 1
    findings.slowest = max(findings.slowest, (answer.cpu_s, answer.wall_s, name))
    if answer.cpu_s > MAX_CPU_S:
        findings.violations.append(f"{name} took {answer.cpu_s:.2f} s of CPU")
    return answer


def _judge(findings, name, answer):
    if answer.code is not None and answer.code not in REFUSALS:
        findings.violations.append(f"{name} was answered {answer.code}")
    if answer.vector is not None and not abs(np.linalg.norm(answer.vector) - 1) <= MAX_GAP:
        findings.violations.append(f"{name} has a vector that is not of norm 1")


def _judge_peak(subject, findings, name="the group"):
    peak_mb = subject.peak_mb()
    findings.peak_mb = max(findings.peak_mb, peak_mb)
    if peak_mb > MAX_PEAK_MB:
        findings.violations.append(f"{name} made the worker {peak_mb:.0f} MB larger than idle")


def _batches(files):
    """Yield names of *files*, as many as go into a batch with as many good ones."""
    names, size = [], 0
    for name, data in files.items():
        if names and (size + len(data) > BATCH_BYTES or len(names) == BATCH_FILES):
            yield names
            names, size = [], 0
        names.append(name)
        size += len(data)
    if names:
        yield names


def _compare_batch(subject, findings, files, neighbours):
    """Send *files*, (data, answer) by name, each before a good picture, and a text at the end."""
    picture, text = neighbours
    items, expected = [], []
    for data, answer in files.values():
        items += [image(data), image(good())]
        expected += [answer, picture]
    answers = subject.batch([*items, TEXT])
    names = [told for name in files for told in (name, f"the neighbour of {name}")] + ["the text"]
    for name, found, wanted in zip(names, answers, [*expected, text], strict=True):
        if "IMAGE_TOO_LARGE" in (found.code, wanted.code) and wanted.cpu_s > NEAR_LIMIT_S:
            continue
        if found.code != wanted.code or not _are_equal(found.vector, wanted.vector):
            findings.violations.append(f"{name} is answered otherwise in a batch: {found.code}")


def _are_equal(one, other):
    return (one is None and other is None) or (
        one is not None and other is not None and np.abs(one - other).max() <= MAX_GAP
    )
