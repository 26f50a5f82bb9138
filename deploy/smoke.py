"""The smoke test of what is deployed: a picture and two texts through it, and what must be true of them.

It is the worker's own smoke test (embedding.serve.smoke) from outside: the bundled picture shows a red
circle, and the text that says so must be nearer. Then the worker says who it is, which is held against what
was deployed. A wrong identity warns and never fails. While RunPod still replaces older workers, any of them
may have answered, well or badly, so an answer then proves nothing and is asked for again.
"""

from __future__ import annotations

import base64
import math
import time
from dataclasses import dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from deploy.errors import DeployError
from embedding.contract.identity import Match, compare


if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from deploy.caller import Caller
    from deploy.console import Console
    from deploy.context import Deadline

PICTURE: Final = "data/red_circle.jpg"
TEXTS: Final = ("a red circle", "a blue square")  # the first is what the picture shows
NORM_TOLERANCE: Final = 1e-3
RETRY_S: Final = 2.0
OLDER: Final = "a worker of an older release may have answered: they have not all gone yet"


@dataclass(frozen=True, slots=True)
class Expected:
    """What the worker should declare of itself; None expects nothing."""

    commit: str | None
    digest: str | None

    @classmethod
    def of(cls, environ: Mapping[str, str], digest: str | None = None) -> Expected:
        """Return what EXPECTED_WORKER_GIT_COMMIT and EXPECTED_WORKER_IMAGE_DIGEST say, else *digest*."""
        commit = environ.get("EXPECTED_WORKER_GIT_COMMIT", "").strip() or None
        return cls(commit, environ.get("EXPECTED_WORKER_IMAGE_DIGEST", "").strip() or digest)

    def match(self, identity: Mapping[str, Any]) -> Match:
        """Return how a worker's *identity* stands to it."""
        return compare(identity, expected_commit=self.commit, expected_digest=self.digest)


@dataclass(frozen=True, slots=True)
class Report:
    """What a smoke test found: each check with whether it passed, and who answered."""

    checks: tuple[tuple[str, bool], ...]
    match: Match
    identity: Mapping[str, Any]
    took_s: float

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(passed for _, passed in self.checks)

    @classmethod
    def of_failure(cls, failed: DeployError, took_s: float) -> Report:
        """Return the report of a test that *failed* before any worker answered."""
        line = "\n  hint: ".join(filter(None, [failed.message, failed.hint]))
        return cls(((line, False),), Match(None, "no worker has answered"), {}, took_s)

    def doubted(self) -> Report:
        """Return the report as one that proves nothing of this release."""
        return replace(self, checks=(*self.checks, (OLDER, False)))

    def print(self, console: Console) -> None:
        """Print a line for each check, one for the identity, and one that sums up."""
        for line, passed in self.checks:
            console.tick(line, passed=passed)
        reason = f": {self.match.reason}" if self.match.reason else ""
        if self.match.matches is False:
            console.warn(f"identity is not the expected one{reason}")
        else:
            told = "identity as expected" if self.match.matches else "identity not known"
            console.tick(f"{told}{reason}", passed=self.match.matches)
        console.say(f"smoke test {'passed' if self.passed else 'FAILED'} in {self.took_s:.1f} s")


def smoke_test(
    caller: Caller,
    console: Console,
    *,
    expected: Expected,
    deadline: Deadline,
    older: Callable[[], int | None] = lambda: 0,
) -> Report:
    """Send the jobs, print a line for each check, and return what was found.

    *older* tells how many workers of an older release may answer, None where that is not known. While there
    are any, the jobs are sent again; a good answer that may be an older worker's when the time is over fails.
    """
    started_s = time.monotonic()
    while True:
        before = older()  # who is there when a job is sent may take it
        report = _asked(caller, expected, deadline, started_s)
        if not before:
            break
        while deadline.left_s and older():
            time.sleep(min(RETRY_S, deadline.left_s))
            if not report.passed:
                break
        if not deadline.left_s:
            report = report.doubted() if report.passed else report
            break
    report.print(console)
    if before is None:
        console.tick(
            "RunPod does not tell its workers: whether an older one answered is not known", passed=None
        )
    return report


def _asked(caller: Caller, expected: Expected, deadline: Deadline, started_s: float) -> Report:
    try:
        checks = checks_of(caller.ask(smoke_input(), deadline))
        said = caller.health(deadline)
    except DeployError as failed:
        return Report.of_failure(failed, time.monotonic() - started_s)
    checks.append((f"health: {_who(said)}", said.get("status") == "ok"))
    identity = _identity(said)
    return Report(tuple(checks), expected.match(identity), identity, time.monotonic() - started_s)


def smoke_input() -> dict[str, Any]:
    """Return the batch: the bundled picture and the two texts."""
    picture = resources.files("embedding").joinpath(PICTURE).read_bytes()
    return {
        "items": [{"image_base64": base64.b64encode(picture).decode()}, *({"text": text} for text in TEXTS)]
    }


def checks_of(output: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """Return each check of the batch's answer, in words, with whether it passed."""
    results = output.get("results")
    if not isinstance(results, list) or len(results) != 1 + len(TEXTS):
        return [(f"three results were expected, the answer has {_told(output)}", False)]
    names = ["image", *(f"text '{text}'" for text in TEXTS)]
    checks = [_vector_check(name, result) for name, result in zip(names, results, strict=True)]
    if not all(passed for _, passed in checks):
        return checks
    vectors = [result["embedding"] for result in results]
    dims = {len(vector) for vector in vectors}
    if len(dims) > 1:
        return [*checks, (f"the vectors have different lengths: {sorted(dims)}", False)]
    cosines = [math.fsum(a * b for a, b in zip(vectors[0], text, strict=True)) for text in vectors[1:]]
    told = ", ".join(f"'{text}' {cosine:.3f}" for text, cosine in zip(TEXTS, cosines, strict=True))
    return [*checks, (f"ranking of the picture: {told}", cosines[0] > cosines[1])]


def _vector_check(name: str, result: Any) -> tuple[str, bool]:
    if not isinstance(result, dict) or not _is_vector(result.get("embedding")):
        return f"{name}: no vector, but {_told(result)}", False
    vector = result["embedding"]
    norm = math.sqrt(math.fsum(value * value for value in vector))
    sound = result.get("dim") == len(vector) and abs(norm - 1) <= NORM_TOLERANCE
    return f"{name}: {len(vector)} numbers, norm {norm:.6f}", sound


def _is_vector(value: Any) -> bool:
    return bool(
        isinstance(value, list)
        and value
        and all(isinstance(each, int | float) and math.isfinite(each) for each in value)
    )


def _told(answer: Any) -> str:
    if isinstance(answer, dict) and isinstance(error := answer.get("error"), dict):
        return f"{error.get('code')}: {error.get('message')}"
    return f"keys {sorted(answer)}" if isinstance(answer, dict) else type(answer).__name__


def _identity(said: Mapping[str, Any]) -> Mapping[str, Any]:
    identity = said.get("identity")
    return identity if isinstance(identity, dict) else {}


def _who(said: Mapping[str, Any]) -> str:
    told = [
        said.get("status"),
        said.get("model"),
        f"fingerprint {said.get('fingerprint')}",
        said.get("device"),
    ]
    return ", ".join(str(each) for each in told if each)
