"""The smoke test: one picture and two texts through the whole worker, and what must be true of them."""

from __future__ import annotations

import base64
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from embedding.errors import WorkerError
from embedding.serve.events import SILENT, Tell


if TYPE_CHECKING:
    from embedding.actions import Actions

PICTURE = "data/red_circle.jpg"
TEXTS = ("a red circle", "a blue square")  # the first is what the bundled picture shows
NORM_TOLERANCE = 1e-5


async def smoke_test(actions: Actions, *, image_url: str | None, golden: str, tell: Tell = SILENT) -> bool:
    """Run every check, print a line for each, and return whether all passed.

    *image_url* replaces the bundled picture, and then only the ranking is not checked. *golden* tells how
    the model stood against its golden vectors when it was loaded; one that fails is never served. *tell* is
    told of the work and its lines.
    """
    report = _Report()
    with tell.job():
        await _check_all(report, actions, image_url, golden)
        report.say(f"smoke test {'passed' if report.passed else 'FAILED'}")
        tell.answer("\n".join(report.lines))
    return report.passed


async def _check_all(report: _Report, actions: Actions, image_url: str | None, golden: str) -> None:
    try:
        report.check(golden, passed=True)
        image = await actions.run(_picture_job(image_url))
        report.vector("image", image)
        texts = [await actions.run({"text": text}) for text in TEXTS]
        for text, result in zip(TEXTS, texts, strict=True):
            report.vector(f"text '{text}'", result)
        report.ranking([_cosine(image, text) for text in texts], is_bundled=image_url is None)
    except WorkerError as error:
        report.check(f"{error.code}: {error.message}", passed=False)


def bundled_picture() -> bytes:
    """Return the JPEG that ships with the package: a red circle on white, 640 x 480."""
    return resources.files("embedding").joinpath(PICTURE).read_bytes()


class _Report:
    """Prints a line for each check and remembers whether all passed."""

    def __init__(self) -> None:
        self.passed = True
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        print(line, flush=True)
        self.lines.append(line)

    def check(self, line: str, *, passed: bool) -> None:
        self.say(f"{'✓' if passed else '✗'} {line}")
        self.passed &= passed

    def vector(self, name: str, result: dict[str, Any]) -> None:
        norm = float(np.linalg.norm(result["embedding"]))
        sound = len(result["embedding"]) == result["dim"] and abs(norm - 1) <= NORM_TOLERANCE
        took_ms = result["timings"]["total_ms"]
        self.check(f"{name}: {result['dim']} numbers, norm {norm:.6f}, {took_ms:.1f} ms", passed=sound)

    def ranking(self, cosines: list[float], *, is_bundled: bool) -> None:
        told = ", ".join(f"'{text}' {cosine:.3f}" for text, cosine in zip(TEXTS, cosines, strict=True))
        if is_bundled:
            self.check(f"ranking of the picture: {told}", passed=cosines[0] > cosines[1])
        else:
            self.say(f"- ranking not checked, the picture is not the bundled one: {told}")


def _picture_job(image_url: str | None) -> dict[str, str]:
    if image_url:
        return {"image_url": image_url}
    return {"image_base64": base64.b64encode(bundled_picture()).decode()}


def _cosine(one: dict[str, Any], other: dict[str, Any]) -> float:
    return float(np.dot(one["embedding"], other["embedding"]))
