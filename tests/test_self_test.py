"""`health` with `check` embeds the golden inputs, and says what failed."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from embedding.model.golden import TEXTS, golden_picture
from embedding.serve.queue import make_handler
from tests.fakes import FakeModel, FakeTokenizer, fake_actions


CHECK = {"action": "health", "check": True}


def right_vectors():
    """Return what a sound FakeModel makes of the golden inputs."""
    model = FakeModel()
    tokens = [FakeTokenizer().tokenize(text, truncate=True) for text in TEXTS]
    return np.concatenate([model.embed_images([golden_picture(8)]), model.embed_texts(tokens)])


def health(actions, job=CHECK):
    """Return what the worker answers."""
    return asyncio.run(make_handler(actions)({"id": "1", "input": job}))


def test_is_not_run_unasked():
    """Plain `health` costs no forward."""
    model = FakeModel()
    answer = health(fake_actions(model=model), {"action": "health"})

    assert "check" not in answer
    assert model.batches == []


@pytest.mark.parametrize("expected", [right_vectors(), None], ids=["golden vectors", "none"])
def test_sound_device(expected):
    """A device that gives the golden vectors passes, with the cosine where there are any to compare."""
    answer = health(fake_actions(expected=expected))

    assert answer["status"] == "ok"
    assert answer["check"]["passed"] is True
    assert answer["check"].get("cosine") == (None if expected is None else 1.0)
    assert "refresh_worker" not in answer


@pytest.mark.parametrize(("gap", "status"), [(1.9e-5, "ok"), (2.1e-5, "failed")])
def test_rounding_is_not_wrong(gap, status):
    """An error up to twice that allowed at the start, 1e-5 of a cosine here, is company in a batch."""
    vectors = right_vectors()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    across = np.linalg.svd(unit[:, None])[2][:, -1]  # (1 + T, D), each at a right angle to its vector
    angle = np.arccos(1 - gap)
    turned = np.cos(angle) * unit + np.sin(angle) * across

    assert health(fake_actions(expected=turned))["status"] == status


def test_wrong_vectors():
    """A device whose numbers are wrong is told as failed from then on, and asks to be replaced."""
    actions = fake_actions(expected=np.roll(right_vectors(), 1, axis=0))
    answer = health(actions)

    assert answer["status"] == "failed"
    assert "the vectors are wrong: cosine " in answer["check"]["reason"]
    assert answer["refresh_worker"] is True
    assert health(actions, {"action": "health"})["status"] == "failed"


@pytest.mark.parametrize(
    "broken",
    [lambda _pixels: 1 / 0, lambda pixels: np.full((len(pixels), 8), np.nan, np.float32)],
    ids=["raises", "not finite"],
)
def test_forward_that_fails(broken):
    """Known inputs that fail are told by their code, and the worker asks to be replaced."""
    model = FakeModel()
    model.embed_images = broken
    actions = fake_actions(model=model)
    answer = health(actions)

    assert answer["status"] == "failed"
    assert answer["check"]["reason"].startswith("INFERENCE_ERROR: ")
    assert answer["refresh_worker"] is True


def test_device_that_hangs():
    """A device that does not answer in time is told, and the check's own work is dropped."""
    model, gate = FakeModel(), threading.Event()
    sound = model.embed_images
    model.embed_images = lambda pixels: gate.wait(20) and sound(pixels)
    actions = fake_actions(model=model)
    answer = health(actions)
    gate.set()

    assert answer["check"] == {"passed": False, "reason": "the device gave no answer within 1 s"}
    assert health(actions)["status"] == "ok"


def test_is_shared():
    """However many ask at once, one check runs."""
    model = FakeModel()
    actions = fake_actions(model=model)

    async def scenario():
        return await asyncio.gather(*(actions.run(CHECK) for _ in range(20)))

    assert {answer["status"] for answer in asyncio.run(scenario())} == {"ok"}
    assert sum(model.batches) == 1 + len(TEXTS)
