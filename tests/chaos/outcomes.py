"""What may become of one item: the vector of a known picture or text, or one error."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Good:
    """The vector of *name*, a picture or a text that an undisturbed model has embedded."""

    name: str


@dataclass(frozen=True, slots=True)
class Bad:
    """An error as its caller meets it."""

    code: str
    retryable: bool = False


Outcome = Good | Bad

INFERENCE_ERROR = Bad("INFERENCE_ERROR", retryable=True)
